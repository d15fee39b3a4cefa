"""Weights sharded over two processes by torch's ``fully_shard``."""

import os
import subprocess
import sys

import pytest
import torch

from dms_mmrazor import Search
from dms_mmrazor.plugins.transformers.folder import load_model, save_folder
from dms_mmrazor.search.distillation import distillation_loss

pytest.importorskip('torch.distributed.fsdp', reason='needs torch 2.6')
if not hasattr(torch.distributed.fsdp, 'fully_shard'):
    pytest.skip('needs torch 2.6', allow_module_level=True)

STEPS = 4

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions, get_model_state_dict)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from dms_mmrazor import DMSError
from dms_mmrazor.plugins.transformers.folder import load_model, save_folder

sys.path.insert(0, sys.argv[3])
from test_sharded import finetune, make_search, search

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group(
    'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
mesh = init_device_mesh('cpu', (2,))

def shard(model):
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)

def whole_weights(model):
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)

tokens = torch.load(f'{folder}/tokens.pth')[:, 2 * rank:2 * rank + 2]
found = make_search(folder)
search(found, shard(found.model), tokens)
weights, state = whole_weights(found.model), found.state_dict()
try:
    found.export()
except DMSError as error:
    assert 'Sharded weights' in str(error) and '\\n' not in str(error)
else:
    raise AssertionError('not refused')
if rank == 0:
    whole = make_search(folder)
    whole.model.load_state_dict(weights)
    whole.load_state_dict(state)
    subnet = whole.export(f'{folder}/sharded.yaml', divisor=1)
    save_folder(subnet.model, f'{folder}/sharded')
frozen = make_search(folder, frozen=True)
search(frozen, shard(frozen.model), tokens)
if rank == 0:
    torch.save(frozen.mutator.topk.importance, f'{folder}/frozen.pth')
dist.barrier()

model = shard(load_model(f'{folder}/found'))
assert {type(p).__name__ for p in model.parameters()} == {'DTensor'}
finetune(model, load_model(f'{folder}/model'), tokens)
weights = whole_weights(model)
if rank == 0:
    plain = load_model(f'{folder}/found')
    plain.load_state_dict(weights)
    save_folder(plain, f'{folder}/tuned')
try:
    make_search(folder, model)
except DMSError as error:
    assert 'shard after Search' in str(error)
else:
    raise AssertionError('not refused')
dist.barrier()
dist.destroy_process_group()
"""


def make_search(folder, model=None, frozen=False):
    """A search whose teacher is the model of the folder."""
    model = load_model(f'{folder}/model') if model is None else model
    model.requires_grad_(not frozen)
    tokens = torch.load(f'{folder}/tokens.pth')[0, :1]
    inputs, target = dict(input_ids=tokens), {'params': 0.8}
    return Search(model, inputs, target, STEPS, distill=dict())


def search(found, model, tokens):
    """All of its steps; ``model`` may be sharded."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for batch in tokens:
        _, loss = found.distill(input_ids=batch, use_cache=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.step()


def finetune(model, teacher, tokens):
    """Distillation alone, with the weights of a found model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for batch in tokens:
        with torch.no_grad():
            wanted = teacher(input_ids=batch).logits
        given = model(input_ids=batch, use_cache=False).logits
        distillation_loss(given, wanted).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_as_in_one_process(language_model, found_model, tmp_path):
    """Searches, of frozen weights too, and finetuning on halves of batches."""
    folder = str(tmp_path)
    language_model().save_pretrained(tmp_path / 'model')
    save_folder(found_model(), f'{folder}/found')
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 96, (STEPS, 4, 12), generator=generator)
    torch.save(tokens, tmp_path / 'tokens.pth')
    here = os.path.dirname(os.path.abspath(__file__))
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', SCRIPT, folder, str(rank), here],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        for rank in (0, 1)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    found = make_search(folder)
    search(found, found.model, tokens)
    frozen = make_search(folder, frozen=True)
    search(frozen, frozen.model, tokens)
    importance = torch.load(tmp_path / 'frozen.pth')
    torch.testing.assert_close(frozen.mutator.topk.importance, importance)
    subnet = found.export(divisor=1).model
    sharded = load_model(f'{folder}/sharded')
    assert sharded.config.per_layer_config == subnet.config.per_layer_config
    model = load_model(f'{folder}/found')
    finetune(model, load_model(f'{folder}/model'), tokens)
    tuned = load_model(f'{folder}/tuned')
    for one, other in ((subnet, sharded), (model, tuned)):
        for a, b in zip(one.parameters(), other.parameters()):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
