# A Llama of 5.8 M parameters, trained on local text from the start. DMS_LM is
# the folder of its tokenizer (4,096 tokens, `tools/dataset_converters/
# byte_pairs.py` makes one); the trained model is written into it, where the
# searches of `llama-6m` find it.
_base_ = '../_base_/datasets/token_windows.py'

# From the environment, as `--cfg-options` come after they are used.
folder = '{{$DMS_LM:data/llama-6m}}'
corpus = '{{$DMS_TEXT:data/text.txt}}'

model = dict(
    type='mmrazor.CausalLM',
    config=dict(
        model_type='llama',
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    ),
)
custom_hooks = [
    dict(type='mmrazor.SaveFolderHook', folder=folder, tokenizer=folder)
]
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

dataset = dict(files=corpus, tokenizer=folder)
train_dataloader = dict(batch_size=16, dataset=dict(**dataset))
val_dataloader = dict(batch_size=16, dataset=dict(**dataset))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)
)
max_iters = 1000
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters)
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
randomness = dict(seed=0)
