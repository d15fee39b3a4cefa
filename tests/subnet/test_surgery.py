import copy

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
    prune,
)
from dms_mmrazor.subnet.surgery import remove_blocks, strides_of


def network():
    """Two layers that are concatenated, and three blocks."""
    return nn.ModuleDict(
        dict(
            a=nn.Conv2d(3, 4, 1),
            norm=nn.BatchNorm2d(4),
            b=nn.Conv2d(3, 2, 1),
            c=nn.Conv2d(6, 5, 1),
            flat=nn.Linear(16, 3),
            blocks=nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))),
        )
    )


def structure(**kwargs):
    values = dict(
        units=(
            UnitStructure(
                'a',
                4,
                (1, 3),
                (LayerSlice('a', 0, 4), LayerSlice('norm', 0, 4)),
                (LayerSlice('c', 2, 6), LayerSlice('flat', 0, 16)),
            ),
        ),
        stages=(
            StageStructure('blocks', ('blocks.0', 'blocks.1'), ('blocks.1',)),
        ),
        layers=8,
        channels=4 + 4 + 6 + 16,
        resources={},
        search={},
    )
    values.update(kwargs)
    return Structure(**values)


def test_layers_get_narrower_and_blocks_go():
    model = network()
    before = copy.deepcopy(model)
    assert prune(model, structure()) is model
    assert torch.equal(model.a.weight, before.a.weight[[1, 3]])
    assert model.norm.num_features == 2
    assert model.b.weight.shape[0] == 2
    assert torch.equal(model.c.weight, before.c.weight[:, [0, 1, 3, 5]])
    positions = [4, 5, 6, 7, 12, 13, 14, 15]
    assert torch.equal(model.flat.weight, before.flat.weight[:, positions])
    # The gap in the numbers is closed.
    assert list(model.blocks.state_dict()) == [
        '0.weight',
        '0.bias',
        '1.weight',
        '1.bias',
    ]
    assert torch.equal(model.blocks[0].weight, before.blocks[1].weight)


def test_named_blocks_keep_their_names():
    model = nn.Module()
    model.stage = nn.Sequential()
    for name in 'xyz':
        model.stage.add_module(name, nn.Linear(2, 2))
    remove_blocks(model, ['stage.y'])
    assert [name for name, _ in model.stage.named_children()] == ['x', 'z']


@pytest.mark.parametrize('strides', [{}, {'a': '1x2'}])
def test_strides_of_another_network(strides):
    """No shape of a weight tells that the network is another."""
    model = network()
    model.a.stride = (2, 2)
    with pytest.raises(DMSError, match="'a' has stride 2") as error:
        prune(model, structure(strides=strides))
    assert strides.get('a', 'had 1') in str(error.value)
    # The advice: strides as in the search. Older files say nothing of them.
    prune(model, structure(strides=strides_of(dict(model.named_modules()))))
    older = network()
    older.a.stride = (2, 2)
    prune(older, structure())


def with_slice(**kwargs):
    part = LayerSlice(**{**dict(layer='a', start=0, end=4), **kwargs})
    unit = UnitStructure('a', 4, (0,), (part,), ())
    return structure(units=(unit,), channels=4)


@pytest.mark.parametrize(
    'found, words',
    [
        (with_slice(layer='x.y'), ["'x.y'", "unit 'a'"]),
        (with_slice(layer='blocks'), ["'blocks'", "unit 'a'"]),
        (with_slice(end=8), ["'a'", '8']),
        (with_slice(end=3), ["'a'", '3']),
        (structure(layers=9), ['8 layers', '9']),
        (structure(channels=29), ['30 channels', '29']),
        (
            structure(stages=(StageStructure('s', ('s.0',), ()),)),
            ["block 's.0'", "stage 's'"],
        ),
    ],
)
def test_another_architecture_is_an_error(found, words):
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(DMSError, match='another architecture') as error:
        prune(model, found)
    assert all(word in str(error.value) for word in words)
    assert '\n' not in str(error.value)
    # Nothing was cut.
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
