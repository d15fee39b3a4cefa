# As the pretrain-free search, from a trained supernet.
_base_ = './regnetx-3.2gf_dms-pretrain-free-1.6g_8xb64-10e_in1k.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/regnet/'
            'regnetx-3.2gf_8xb64_in1k_20211213-1fdd82ae.pth',
        )
    )
)

# A tenth of the learning rate that trained the supernet (ours).
optim_wrapper = dict(optimizer=dict(lr=0.04))
