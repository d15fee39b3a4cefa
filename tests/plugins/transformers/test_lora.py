"""Finetuning of a found model with adapters of low rank."""

import copy

import pytest
import torch
from mmengine.runner import Runner

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.folder import (
    export_folder,
    load_model,
    save_folder,
)
from dms_mmrazor.plugins.transformers.lora import add_lora, merge_lora

pytest.importorskip('peft', reason='peft is not installed: dms_mmrazor[lora]')


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


def train(model, tokens, steps=3):
    """Adapters move, B from zero."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_merged_model_is_a_plain_folder(found_model, tokens, tmp_path):
    model, plain = found_model(), found_model()
    assert len(add_lora(model, rank=4, dropout=0.1)) == 21
    sizes = model.model.layers[0].self_attn.q_proj.lora_B['default']
    assert sizes.out_features == 16  # two of four heads of 8 dims
    assert all(
        p.requires_grad == ('lora_' in n) for n, p in model.named_parameters()
    )
    torch.testing.assert_close(logits(model, tokens), logits(plain, tokens))
    train(model, tokens)
    expected = logits(model, tokens)
    assert not torch.allclose(expected, logits(plain, tokens), atol=1e-2)
    with pytest.raises(DMSError, match='merge_lora'):
        save_folder(model, str(tmp_path))
    merge_lora(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(p.requires_grad for p in model.parameters())
    save_folder(model, str(tmp_path))
    again = load_model(str(tmp_path))
    close = dict(atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(model, tokens), expected, **close)
    torch.testing.assert_close(logits(again, tokens), expected, **close)


def test_weights_without_adapters_are_loaded(found_model, tokens):
    model, plain = found_model(), found_model()
    plain.model.layers[0].mlp.up_proj.weight.data.mul_(2)
    add_lora(model, rank=2)
    train(model, tokens, 1)
    own = copy.deepcopy(model.state_dict())
    model = copy.deepcopy(model)
    model.load_state_dict(plain.state_dict())
    layer = model.model.layers[0].mlp.up_proj
    assert layer.base_layer.weight.equal(
        plain.model.layers[0].mlp.up_proj.weight
    )
    name = 'model.layers.0.mlp.up_proj.lora_B.default.weight'
    assert layer.lora_B['default'].weight.equal(own[name])
    assert own[name].any()
    model.load_state_dict(own)  # as a resumed training does
    assert not layer.base_layer.weight.equal(
        plain.model.layers[0].mlp.up_proj.weight
    )


def test_adapters_of_half_precision_are_whole(found_model, tokens):
    model = found_model().to(torch.bfloat16)
    add_lora(model, rank=2)
    kinds = {p.requires_grad: p.dtype for p in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    train(model, tokens, 1)
    expected = logits(model, tokens)
    assert expected.dtype == torch.bfloat16
    merge_lora(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    difference = (logits(model, tokens) - expected).abs().max()
    assert difference < 0.05 * expected.abs().max()


def test_config_of_a_finetuning(found_files, tokens, tiny_config, tmp_path):
    """Its folder is that of its last checkpoint."""
    cfg = tiny_config('llama-7b_dms-finetune-lora_alpaca.py', tmp_path / 'run')
    cfg.custom_hooks[0].update(folder=str(tmp_path / 'hook'))
    cfg.optim_wrapper.update(accumulative_counts=1)
    cfg.optim_wrapper.optimizer.lr = 0.01
    part = cfg.model.architecture.architecture
    part.structure = found_files.structure
    part.init_cfg.checkpoint = found_files.weights
    for whole in (part.architecture, cfg.model.teacher):
        whole.update(folder=found_files.supernet, dtype='float32')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert 'train/loss_distill' in runner.message_hub.log_scalars
    out = str(tmp_path / 'tool')
    last = str(tmp_path / 'run/iter_2.pth')
    export_folder(found_files.supernet, found_files.structure, out, last)
    expected = logits(load_model(out), tokens)
    hook = load_model(str(tmp_path / 'hook'))
    torch.testing.assert_close(logits(hook, tokens), expected)
    start = logits(found_files.model, tokens)
    assert not torch.allclose(expected, start, atol=1e-3)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(rank=0), '`rank` must be'),
        (dict(rank=4, alpha=-1), '`alpha`'),
        (dict(rank=4, dropout=1), '`dropout`'),
        (dict(rank=4, layers=['fc']), "names out of .*'q_proj'"),
    ],
)
def test_wrong_settings(language_model, settings, message):
    with pytest.raises(DMSError, match=message):
        add_lora(language_model(), **settings)


def test_wrong_order(language_model):
    model = language_model()
    with pytest.raises(DMSError, match='nothing to merge'):
        merge_lora(model)
    add_lora(model, rank=2)
    with pytest.raises(DMSError, match='already'):
        add_lora(model, rank=2)
