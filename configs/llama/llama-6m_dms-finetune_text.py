# What a search of llama-6m has found, with the weights that it had there,
# trained further with the whole model as the teacher; at the end it is written
# as a folder of transformers, `found` beside the checkpoints.
_base_ = './llama-6m_dms-search-80_text.py'

found = '{{$DMS_FOUND:work_dirs/llama-6m_dms-search-80_text/subnet}}'
work_dir = './work_dirs/llama-6m_dms-finetune_text'

whole = dict(type='mmrazor.CausalLM', folder=_base_.folder, dtype='float32')
model = dict(
    _delete_=True,
    type='mmrazor.DistilledModel',
    architecture=dict(
        type='mmrazor.DMSSubModel',
        architecture=whole,
        structure=f'{found}/subnet.yaml',
        init_cfg=dict(type='Pretrained', checkpoint=f'{found}/subnet.pth'),
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
max_iters = 400
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters)
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
