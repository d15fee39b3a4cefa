# As the pretrain-free search, from the trained supernet.
_base_ = './mobilenet-v2-w1.5-d2_dms-pretrain-free-0.3g_8xb32-30e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mobilenet-v2-w1.5-d2_8xb32_in1k/epoch_300.pth',
        )
    )
)

# A tenth of the learning rate that trains the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.0045))
