# As the pretrain-free search, from a trained supernet.
_base_ = './resnext101-32x4d_dms-pretrain-free-4.2g_8xb32-10e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnext/'
            'resnext101_32x4d_b32x8_imagenet_20210506-e0fa3dd5.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.01))
