# What llama-7b_dms-structure-only-5.47b_alpaca.py has found, with adapters of
# low rank (peft) and the whole model as the teacher. At the end they are
# merged into a folder of transformers, `found` beside the checkpoints.
_base_ = './llama-7b_dms-structure-only-5.47b_alpaca.py'

found = (
    '{{$DMS_FOUND:work_dirs/llama-7b_dms-structure-only-5.47b_alpaca/subnet}}'
)
work_dir = './work_dirs/llama-7b_dms-finetune-lora_alpaca'

whole = dict(
    type='mmrazor.CausalLM',
    folder=_base_.folder,
    dtype='bfloat16',
    with_cp=True,
)
model = dict(
    _delete_=True,
    type='mmrazor.DistilledModel',
    architecture=dict(
        type='mmrazor.LoRAModel',
        architecture=dict(
            type='mmrazor.DMSSubModel',
            architecture=whole,
            structure=f'{found}/subnet.yaml',
            init_cfg=dict(type='Pretrained', checkpoint=f'{found}/subnet.pth'),
        ),
        rank=8,
    ),
    teacher=whole,
    distill=dict(task_weight=0.0),
)
custom_hooks = [
    dict(
        type='mmrazor.SaveFolderHook',
        folder=f'{work_dir}/found',
        tokenizer=_base_.folder,
    )
]

# 64 windows for each step of the optimizer.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=8,
)
max_iters = 8000
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters)
]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=1)
)
