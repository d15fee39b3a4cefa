# DMS on AutoFormer's coarse space, structure-only (DMS paper, Table 16; the
# target is that of AutoFormer-T).
_base_ = './autoformer-tiny_8xb128_in1k.py'

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained', checkpoint='work_dirs/autoformer/supernet-tiny.pth'
)
algorithm = _base_.algorithm
algorithm.mutator = _base_.space
model = dict(_delete_=True, architecture=architecture, **algorithm)
custom_hooks = [dict(_base_.resource_hook, target='1.3G', divisor=1)]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
