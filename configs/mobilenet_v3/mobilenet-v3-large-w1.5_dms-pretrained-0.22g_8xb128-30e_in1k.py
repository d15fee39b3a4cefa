# As the pretrain-free search, from the trained supernet.
_base_ = './mobilenet-v3-large-w1.5_dms-pretrain-free-0.22g_8xb128-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mobilenet-v3-large-w1.5_8xb128_in1k/epoch_600.pth',
        )
    )
)

# A tenth of the learning rate that trains the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.0064))
