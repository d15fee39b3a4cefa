# SmolLM2-135M (a Llama with grouped queries and tied embeddings) to 80 % of
# its parameters: all weights train, the model as it was is the teacher. A
# folder of it in safetensors and local text are needed, no network.
_base_ = [
    '../_base_/datasets/token_windows.py',
    '../_base_/pipelines/pretrained.py',
]

# From the environment, as `--cfg-options` come after they are used.
folder = '{{$DMS_LM:data/smollm2-135m}}'
corpus = '{{$DMS_TEXT:data/text.txt}}'

model = dict(
    **_base_.algorithm,
    architecture=dict(type='mmrazor.CausalLM', folder=folder, dtype='float32'),
    distill=dict(task_weight=0.0),
)
model['mutator'] = dict(
    type='mmrazor.DMSMutator',
    parse_cfg=dict(type='DMSChannelAnalyzer', demo_input=(1, 128)),
)

custom_hooks = [dict(_base_.resource_hook, target=dict(params=0.8))]

dataset = dict(files=corpus, tokenizer=folder)
train_dataloader = dict(batch_size=4, dataset=dict(**dataset))
val_dataloader = dict(batch_size=4, dataset=dict(**dataset, limit=64))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
max_iters = 300
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=max_iters))
randomness = dict(seed=0)
