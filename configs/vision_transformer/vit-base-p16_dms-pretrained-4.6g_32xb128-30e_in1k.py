# As the pretrain-free search, from a trained supernet.
_base_ = './vit-base-p16_dms-pretrain-free-4.6g_32xb128-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vit/'
            'vit-base-p16_pt-32xb128-mae_in1k_20220623-4c544545.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))

# Trained weights need no warmup.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
