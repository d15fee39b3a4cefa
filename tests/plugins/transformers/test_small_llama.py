"""The configs of a small Llama, from a text to a found folder."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.byte_pairs import train_tokenizer
from dms_mmrazor.plugins.transformers.folder import load_model

CONFIGS = Path(__file__).parents[3] / 'configs/llama'
VOCABULARY = 300


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Trains by a config for a moment, with paths from the environment."""
    text = tmp_path / 'text.txt'
    words = [
        f'document {n} counts to {n * n}, word for word' for n in range(9)
    ]
    text.write_text('\n\n\n'.join(line * 4 for line in words))
    paths = dict(LM='lm', TEXT='text.txt', FOUND='llama-6m_dms-search-50_text')
    for name, path in paths.items():
        end = '/subnet' if name == 'FOUND' else ''
        monkeypatch.setenv(f'DMS_{name}', str(tmp_path / path) + end)
    train_tokenizer([str(text)], str(tmp_path / 'lm'), VOCABULARY)

    def run(name):
        cfg = Config.fromfile(str(CONFIGS / f'{name}.py'))
        cfg.work_dir = cfg.experiment_name = str(tmp_path / name)
        cfg.train_cfg.update(max_iters=4, val_interval=4)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(batch_size=2)
            loader.dataset.update(window=16)
        cfg.test_dataloader = cfg.val_dataloader
        for hook in cfg.custom_hooks:
            if 'Folder' in hook.type and 'finetune' in name:
                hook.folder = str(tmp_path / 'found')
            if 'Resource' in hook.type:
                hook.divisor = 1
        if 'config' in cfg.model:
            cfg.model.config.update(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
            )
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner.message_hub.log_scalars['val/perplexity'].current()

    return run


def test_from_text_to_a_found_folder(train, tmp_path):
    assert train('llama-6m_1xb16-1000i_text') > 1
    whole = load_model(str(tmp_path / 'lm'))
    assert whole.config.vocab_size == VOCABULARY
    assert train('llama-6m_dms-search-50_text') > 1
    assert train('llama-6m_dms-finetune_text') > 1
    found = load_model(str(tmp_path / 'found'))
    before, after = (
        sum(p.numel() for p in model.parameters()) for model in (whole, found)
    )
    assert 0.4 * before < after <= 0.5 * before
    assert (tmp_path / 'found/tokenizer.json').is_file()


def test_sizes_as_they_are_named():
    """5.8 M parameters, and targets by the names of the files."""
    from dms_mmrazor.registry import MODELS

    cfg = Config.fromfile(str(CONFIGS / 'llama-6m_1xb16-1000i_text.py'))
    params = sum(p.numel() for p in MODELS.build(cfg.model).parameters())
    assert round(params / 1e6, 1) == 5.8
    for percent in (80, 50):
        name = f'llama-6m_dms-search-{percent}_text.py'
        cfg = Config.fromfile(str(CONFIGS / name))
        (hook,) = cfg.custom_hooks
        assert hook.target == dict(params=percent / 100)
        assert cfg.model.architecture.folder == 'data/llama-6m'
        assert cfg.train_dataloader.dataset.tokenizer == 'data/llama-6m'


def test_a_tokenizer_needs_text(tmp_path):
    with pytest.raises(DMSError, match='257 tokens'):
        train_tokenizer([], str(tmp_path))
