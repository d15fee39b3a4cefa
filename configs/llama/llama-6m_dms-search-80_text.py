# What llama-6m_1xb16-1000i_text.py has trained to 80 % of its parameters: all
# weights train, the model as it was is the teacher.
_base_ = './smollm2-135m_dms-search-80_text.py'

folder = '{{$DMS_LM:data/llama-6m}}'

model = dict(architecture=dict(folder=folder))
dataset = dict(files=_base_.corpus, tokenizer=folder)
train_dataloader = dict(batch_size=16, dataset=dict(**dataset))
val_dataloader = dict(batch_size=16, dataset=dict(**dataset, limit=None))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4),
)
max_iters = 200
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
