# As the pretrain-free search, from a trained supernet and with a tenth of the
# learning rate that trained it.
_base_ = './yolov8_d50w50_dms-pretrain-free-4.2g_syncbn_fast_8xb16-30e_coco.py'

model = dict(
    architecture=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/yolov8_d50w50_syncbn_fast_8xb16-500e_coco/'
            'epoch_500.pth',
        )
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.001))
default_hooks = dict(param_scheduler=dict(warmup_bias_lr=0.001))
