# As the pretrain-free search, from a trained supernet. The checkpoint is of
# 380 px; the config beside this one trains a supernet of 224 px.
_base_ = './efficientnet-b4_dms-pretrain-free-0.39g_8xb96-30e_in1k-224px.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/efficientnet/'
            'efficientnet-b4_3rdparty_8xb32-aa_in1k_20220119-45b8bd2b.pth',
        )
    )
)

# A tenth of the learning rate that trains the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=4.8e-3))
