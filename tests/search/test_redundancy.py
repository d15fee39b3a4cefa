"""What other channels could replace, as searches measure it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dms_mmrazor import DMSError, Search
from dms_mmrazor.search.redundancy import INTERVAL

STEPS = 2 * INTERVAL
SIGNAL = dict(signal='removal')


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )


def train(search, until=STEPS, model=None):
    model = model or search.model
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for index in range(until):
        x = torch.rand(64, 3, 8, 8, generator=generator)
        y = torch.randint(4, (64,), generator=generator)
        if index < search.iteration:
            continue
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    return search


def new_search(model=None):
    model = network() if model is None else model
    example = torch.rand(2, 3, 8, 8)
    return Search(model, example, 0.5, STEPS, structure_step=SIGNAL)


def test_a_channel_that_is_there_twice_is_cheap():
    model = network()
    with torch.no_grad():  # channels 0 to 5 are there twice
        model[0].weight[6:] = model[0].weight[:6]
        model[0].bias[6:] = model[0].bias[:6]
        model[0].weight[5], model[0].bias[5] = -model[0].weight[4], 3.0
    search = new_search(model)
    train(search, 1)
    portion = search.structure.redundancy.portion
    assert len(portion) == 12 + 16 + 24
    assert (portion[:5] < 0.1).all() and (portion[6:11] < 0.1).all()
    assert portion[5] > 2 * portion[:5].max()


class Residual(nn.Module):
    """A block of one hidden layer, and one that could be left out."""

    def __init__(self, act):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), act, nn.Linear(32, 8))

    def forward(self, x):
        return x + self.layers(x)


def test_a_block_that_is_linear_is_cheap():
    torch.manual_seed(0)
    acts = [nn.ReLU(), nn.Identity(), nn.ReLU()]
    model = nn.Sequential(
        nn.Linear(192, 8),
        nn.Sequential(*map(Residual, acts)),
        nn.Linear(8, 4),
    )
    model = nn.Sequential(nn.Flatten(), model)
    search = new_search(model)
    (stage,) = search.mutator.depth_units
    assert len(stage.block_names) == 3
    train(search, 1)
    portion = search.structure.redundancy.portion
    index = stage.mutable_depth.places.index[0].tolist()
    first, linear, last = portion[index].tolist()
    assert linear < 0.1 and first > 2 * linear and last > 2 * linear


def test_queries_that_are_there_twice_are_cheap():
    timm = pytest.importorskip('timm')
    model = timm.models.VisionTransformer(
        img_size=8, patch_size=2, embed_dim=16, depth=1, num_heads=2
    )
    query = model.blocks[0].attn.qkv
    with torch.no_grad():  # in each head dim 1 of q is dim 0
        query.weight[[1, 9]] = query.weight[[0, 8]]
    search = new_search(model)
    train(search, 1)
    (unit,) = (u for u in search.mutator.units if u.name.endswith('qk_dims'))
    portion = search.structure.redundancy.portion
    dims = portion[unit.mutable_channel.places.index[0]]
    assert len(dims) == 8 and (dims[:2] < 0.1).all()
    assert (dims[2:] > 3 * dims[:2].max()).all()


def test_a_removal_counts_what_cannot_be_replaced():
    search = new_search()
    train(search, 3)
    images = torch.rand(8, 3, 8, 8)
    F.cross_entropy(search.model(images), torch.zeros(8).long()).backward()
    structure = search.structure
    grad = search.mutator.masks.take_gradient(None)
    removal = structure.task(grad)
    structure.redundancy.portion.fill_(0.25)
    importance = structure.task(grad, 'importance')
    torch.testing.assert_close(structure.task(grad), importance / 4)
    assert not torch.equal(removal, importance)


def test_resumes_to_the_bit():
    undisturbed = train(new_search())
    first = train(new_search(), INTERVAL + 3)
    states = [copy.deepcopy(p.state_dict()) for p in (first, first.model)]
    again = new_search()
    for part, state in zip((again, again.model), states):
        part.load_state_dict(state)
    train(again)
    for name, value in undisturbed.structure.state_dict().items():
        assert torch.equal(value, again.structure.state_dict()[name]), name
    found = again.export(divisor=1).structure.units
    assert found == undisturbed.export(divisor=1).structure.units


def test_a_subnet_is_not_watched():
    search = train(new_search())
    model = search.export(divisor=1).model
    assert not [m for m in model.modules() if m._forward_hooks]


def test_what_is_compiled_cannot_be_watched():
    search = new_search()
    model = torch.compile(search.model, backend='eager')
    with pytest.raises(DMSError, match='removal.*compile'):
        train(search, 1, model)


def test_nothing_to_compare():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    with pytest.raises(DMSError):
        new_search(model)
