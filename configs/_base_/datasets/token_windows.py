# Windows of 128 tokens of local text, packed; one document in ten is held
# out. What the files may be: see `TokenWindows`. Set in a config:
#
#   dataset = dict(files='text/*.txt', tokenizer='folder of the model')
#   train_dataloader = dict(dataset=dataset)
#   val_dataloader = dict(dataset=dataset)
#   test_dataloader = val_dataloader
train_dataset = dict(
    type='mmrazor.TokenWindows', files=[], window=128, part='train'
)
val_dataset = dict(
    type='mmrazor.TokenWindows', files=[], window=128, part='held_out'
)

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=train_dataset,
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=val_dataset,
)
val_evaluator = dict(type='mmrazor.Perplexity')
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()

# Trainings are counted in iterations.
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False),
    logger=dict(type='LoggerHook', interval=10),
)
log_processor = dict(by_epoch=False)

default_scope = 'mmrazor'
