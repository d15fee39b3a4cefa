# As the pretrain-free search, from a trained supernet.
_base_ = './deit-small-l16_dms-pretrain-free-1.3g_4xb256-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/deit-small-l16_4xb256_in1k/epoch_300.pth',
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
