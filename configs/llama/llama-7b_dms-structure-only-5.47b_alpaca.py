# Table 10 of the paper: Llama-7B (6.74 B parameters) to 5.47 B by heads and
# FFN widths, with the original model as the teacher. The weights are frozen
# in bfloat16, so that the search fits on one GPU of 80 GB (configs/llama).
_base_ = [
    '../_base_/datasets/token_windows.py',
    '../_base_/pipelines/structure_only.py',
]

# From the environment, as `--cfg-options` come after they are used.
folder = '{{$DMS_LM:data/llama-7b}}'
alpaca = '{{$DMS_TEXT:data/alpaca/alpaca_data.json}}'

model = dict(
    **_base_.algorithm,
    architecture=dict(
        type='mmrazor.CausalLM', folder=folder, dtype='bfloat16', with_cp=True
    ),
    distill=dict(task_weight=0.0),
)
# MACs are those of one sequence of so many tokens.
model['mutator'] = dict(
    type='mmrazor.DMSMutator',
    parse_cfg=dict(type='DMSChannelAnalyzer', demo_input=(1, 128)),
)

custom_hooks = [dict(_base_.resource_hook, target=dict(params='5.47G'))]

dataset = dict(files=alpaca, tokenizer=folder, held_out=0.02)
train_dataloader = dict(batch_size=8, dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)
)  # nothing but the structure moves
train_cfg = dict(**_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
randomness = dict(seed=0)
