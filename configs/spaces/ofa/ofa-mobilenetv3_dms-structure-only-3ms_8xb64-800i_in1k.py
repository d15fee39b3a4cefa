# As with 0.45 G MACs, by measured latency (DMS paper, Table 13: 3 ms on an
# RTX 3090). Measure the layers of the supernet first, on the device that
# counts:
#   python tools/profile_latency.py THIS_FILE --out work_dirs/ofa/latency.yaml
_base_ = './ofa-mobilenetv3_dms-structure-only-0.45g_8xb64-800i_in1k.py'

custom_hooks = [
    dict(
        _base_.resource_hook,
        target=dict(latency='3ms'),
        latency_table='work_dirs/ofa/latency.yaml',
        divisor=1,
    )
]
