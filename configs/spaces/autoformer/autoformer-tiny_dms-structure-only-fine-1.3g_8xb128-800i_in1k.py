# As the coarse search, in steps of 1 (DMS paper, Table 16, "fine-grained").
_base_ = './autoformer-tiny_dms-structure-only-1.3g_8xb128-800i_in1k.py'

model = dict(mutator=dict(_delete_=True, **_base_.fine_space))
