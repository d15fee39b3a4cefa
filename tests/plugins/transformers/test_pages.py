"""What pages and configs say of language models works as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor import Search
from dms_mmrazor.models.algorithms.sub_model import find_sub_model
from dms_mmrazor.plugins.transformers.folder import save_folder

ROOT = Path(__file__).parents[3]
transformers = pytest.importorskip('transformers')


def _block(page, heading, language):
    """The first block of a language below a heading."""
    text = (ROOT / page).read_text(encoding='utf-8')
    section = text.split(f'# {heading}\n')[1].split('\n## ')[0]
    return re.search(rf'```{language}\n(.*?)```', section, re.S).group(1)


def test_loop_of_the_recipes(language_model, tokens, tmp_path, monkeypatch):
    language_model().save_pretrained(tmp_path / 'model')
    monkeypatch.chdir(tmp_path)
    load = transformers.AutoModelForCausalLM.from_pretrained
    names = {}

    class Auto:
        """The optimizer is the reader's, of the weights that are loaded."""

        @staticmethod
        def from_pretrained(name):
            model = load(name)
            names['optimizer'] = torch.optim.SGD(model.parameters(), lr=0.1)
            return model

    names.update(
        AutoModelForCausalLM=Auto,
        Search=Search,
        save_folder=save_folder,
        folder='model',
        tokens=tokens,
        steps=6,
        loader=[tokens] * 6,
        tokenizer=None,
    )
    block = _block('docs/recipes.md', 'A language model', 'python')
    exec(compile(block, 'recipes.md', 'exec'), names)
    found = load('found', trust_remote_code=True)
    whole = sum(p.numel() for p in load('model').parameters())
    params = sum(p.numel() for p in found.parameters())
    assert 0.5 * whole < params <= 0.8 * whole


def test_command_of_the_configs(monkeypatch):
    """Settings of the line are those of the config that it names."""
    block = _block('configs/llama/README.md', 'Llama, Mistral, Qwen', 'bash')
    words = shlex.split(block.replace('\\\n', ' ').splitlines()[0])
    settings = [w for w in words if re.match(r'[A-Z_]+=', w)]
    assert settings == words[: len(settings)] and '--cfg-options' not in words
    values = dict(word.split('=', 1) for word in settings)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (path,) = [word for word in words if word.startswith('configs/')]
    cfg = Config.fromfile(str(ROOT / path))
    assert cfg.model.architecture.folder == values['DMS_LM'] == 'FOLDER'
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.dataset.files == values['DMS_TEXT'] == 'text/*.txt'
        assert loader.dataset.tokenizer == 'FOLDER'


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs/llama').glob('*.py')), ids=lambda p: p.stem
)
def test_files_of_every_config(path, monkeypatch):
    plain = Config.fromfile(str(path)).pretty_text
    assert 'data/' in plain and '{{' not in plain
    values = dict(DMS_LM='my/model', DMS_TEXT='my/*.txt', DMS_FOUND='my/found')
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    cfg = Config.fromfile(str(path))
    assert "'data/" not in cfg.pretty_text
    assert cfg.test_dataloader.dataset.files == 'my/*.txt'
    if 'finetune' in path.stem:
        assert cfg.model.teacher.folder == 'my/model'
        _, part = find_sub_model(cfg.model)
        assert part.structure == 'my/found/subnet.yaml'


def test_head_of_the_windows(tmp_path):
    """What the base config advises reaches the loaders."""
    base = ROOT / 'configs/_base_/datasets/token_windows.py'
    head = base.read_text().split('\n\n')[0].splitlines()
    lines = [line[4:] for line in head if line.startswith('#   ')]
    config = tmp_path / 'config.py'
    config.write_text('\n'.join([f"_base_ = '{base}'", *lines]))
    cfg = Config.fromfile(str(config))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.dataset.files == 'text/*.txt'
        assert loader.dataset.tokenizer == 'folder of the model'
        assert loader.dataset.window == 128
    assert cfg.val_dataloader.dataset.part == 'held_out'
