# As the pretrain-free search, from a trained supernet.
_base_ = './seresnet101_dms-pretrain-free-4.1g_8xb32-10e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/se-resnet/'
            'se-resnet101_batch256_imagenet_20200804-ba5b51d4.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.01))
