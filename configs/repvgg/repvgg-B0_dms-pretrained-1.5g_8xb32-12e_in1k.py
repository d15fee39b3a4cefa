# As the pretrain-free search, from a trained supernet.
_base_ = './repvgg-B0_dms-pretrain-free-1.5g_8xb32-12e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/repvgg/'
            'repvgg-B0_8xb32_in1k_20221213-5091ecc7.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.01))
