# Pretrained search (Table 1): start from a trained supernet, train all
# weights, retrain the subnet. As pretrain_free.py, and the config names the
# supernet's checkpoint:
#
#   architecture = _base_.model
#   architecture.init_cfg = dict(type='Pretrained', checkpoint='….pth')
#   model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
_base_ = './pretrain_free.py'
