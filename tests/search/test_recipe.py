"""The recipe of a loop of one's own runs as it stands in the docs."""

import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dms_mmrazor import Search

PAGE = Path(__file__).parents[2] / 'docs/recipes.md'
STEPS, ACCUMULATE = 6, 2


def code():
    text = PAGE.read_text(encoding='utf-8')
    part = text[text.index('in a loop of your own') :]
    return re.search(r'```python\n(.*?)```', part, re.S).group(1)


def test_a_latency_is_measured_and_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding='utf-8')
    (block,) = (
        part
        for part in re.findall(r'```python\n(.*?)```', text, re.S)
        if 'profile_latency(' in part
    )
    quick = 'threads=1, structures=4, held_out=1, rounds=2'
    names = dict(
        Search=Search,
        build_model=network,
        model=network(),
        images=torch.rand(2, 3, 8, 8),
        steps=4,
    )
    # Whatever this machine measures of so little is in reach.
    block = block.replace('threads=1', quick).replace('0.6', '1.0')
    exec(block, names)
    full = names['search'].mutator.table.full['latency']
    assert names['search'].targets == {'latency': full}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


class Stopped(Exception):  # noqa: N818
    """Somebody stops the training."""


def run(folder, batches_until_stop=None):
    """What the recipe defines, from where the last run has stopped."""
    checkpoint = folder / 'last.pth'
    done = 0
    if checkpoint.is_file():
        done = torch.load(checkpoint, weights_only=True)['search']
        done = done['iteration'] * ACCUMULATE
    given = iter(range(done, STEPS * ACCUMULATE))

    def next_batches(number):
        for _, index in zip(range(number), given):
            if index == batches_until_stop:
                raise Stopped
            generator = torch.Generator().manual_seed(index)
            images = torch.rand(4, 3, 8, 8, generator=generator)
            yield images, torch.randint(4, (4,), generator=generator)

    names = dict(
        AveragedModel=AveragedModel,
        F=F,
        Search=Search,
        accumulate=ACCUMULATE,
        checkpoint=checkpoint,
        device='cpu',
        dtype=torch.bfloat16,
        ema=lambda old, new, count: 0.9 * old + 0.1 * new,
        images=torch.rand(2, 3, 8, 8),
        model=network(),
        next_batches=next_batches,
        optimizer_steps=STEPS,
        os=os,
        save_every=2,
        torch=torch,
        wrap=lambda model: model,
    )
    exec(compile(code(), PAGE.name, 'exec'), names)
    return names


@pytest.mark.skipif(
    not hasattr(torch, 'amp') or not hasattr(torch.amp, 'GradScaler'),
    reason='no loss scaler for a CPU on this torch',
)
def test_the_recipe_is_stopped_and_goes_on(tmp_path, monkeypatch):
    folders = [tmp_path / 'whole', tmp_path / 'stopped']
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    whole = run(folders[0])
    assert whole['search'].iteration == STEPS
    assert Path('subnet.yaml').is_file()
    monkeypatch.chdir(folders[1])
    with pytest.raises(Stopped):
        run(folders[1], batches_until_stop=9)
    resumed = run(folders[1])
    for part in ('model', 'average', 'small'):
        one, two = (names[part].state_dict() for names in (whole, resumed))
        assert all(torch.equal(one[key], two[key]) for key in one)
