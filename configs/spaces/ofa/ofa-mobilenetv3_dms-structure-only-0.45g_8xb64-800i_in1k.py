# DMS on OFA's supernet, structure-only (DMS paper, Table 3: 0.45 G MACs).
_base_ = './ofa-mobilenetv3_8xb64_in1k.py'

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained', checkpoint='work_dirs/ofa/supernet.pth'
)
algorithm = _base_.algorithm
algorithm.mutator = _base_.space
model = dict(_delete_=True, architecture=architecture, **algorithm)
# OFA's widths are what they are: steps of a sixth, no divisor.
custom_hooks = [dict(_base_.resource_hook, target='0.45G', divisor=1)]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
