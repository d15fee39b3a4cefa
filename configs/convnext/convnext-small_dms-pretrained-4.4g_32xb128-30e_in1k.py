# As the pretrain-free search, from a trained supernet.
_base_ = './convnext-small_dms-pretrain-free-4.4g_32xb128-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
            'convnext-small_32xb128_in1k_20221207-4ab7052c.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=4e-4))

# Trained weights need no warmup.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
