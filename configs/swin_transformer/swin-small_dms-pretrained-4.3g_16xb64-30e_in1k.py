# As the pretrain-free search, from a trained supernet.
_base_ = './swin-small_dms-pretrain-free-4.3g_16xb64-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
            'swin_small_224_b16x64_300e_imagenet_20210615_110219-7f9d988b.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=1e-4))

# Trained weights need no warmup.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
