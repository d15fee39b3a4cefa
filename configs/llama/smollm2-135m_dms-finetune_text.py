# What smollm2-135m_dms-search-80_text.py has found, with the weights that it
# had there, trained further with the whole model as the teacher.
_base_ = './smollm2-135m_dms-search-80_text.py'

found = '{{$DMS_FOUND:work_dirs/smollm2-135m_dms-search-80_text/subnet}}'

model = dict(
    _delete_=True,
    type='mmrazor.DistilledModel',
    architecture=dict(
        type='mmrazor.DMSSubModel',
        architecture=dict(
            type='mmrazor.CausalLM', folder=_base_.folder, dtype='float32'
        ),
        structure=f'{found}/subnet.yaml',
        init_cfg=dict(type='Pretrained', checkpoint=f'{found}/subnet.pth'),
    ),
    teacher=dict(
        type='mmrazor.CausalLM', folder=_base_.folder, dtype='float32'
    ),
    distill=dict(task_weight=0.0),
)
custom_hooks = []
