# Pretrained search (Table 1): start from a trained supernet, train all
# weights, retrain the subnet. As pretrain_free.py, and the config names the
# supernet's checkpoint:
#
#   model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
#   model.architecture.init_cfg = dict(type='Pretrained', checkpoint='….pth')
_base_ = './pretrain_free.py'
