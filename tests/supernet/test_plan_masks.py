"""The masks of all layers at once are those that each layer composes."""

import copy
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.layers import DMSOp

NAMES = ('inputs', 'outputs', 'depth')


@pytest.fixture
def searches(zoo):
    """Concatenations, products of heads and dims, and depth."""
    densenet = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.DenseNet',
            arch=dict(growth_rate=4, depths=[2, 2], init_channels=8),
        ),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=10, in_channels=16
        ),
    )
    return {
        'vit': zoo.algorithm(zoo.vit(48, 2, 3), 32),
        'resnet': zoo.algorithm(zoo.cifar_resnet(), 32),
        'densenet': zoo.algorithm(densenet, 32),
    }


def layers_of(search):
    return [m for m in search.architecture.modules() if isinstance(m, DMSOp)]


def masks_of(search):
    """Masks of a random soft structure, planned and composed."""
    topk = search.mutator.topk
    topk.importance.copy_(torch.rand(topk.importance.shape))
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.uniform_(0.1, 0.6)
    search.mutator.masks.use_soft_masks()
    planned = [layer.masks() for layer in layers_of(search)]
    return planned, [layer.composed_masks() for layer in layers_of(search)]


@pytest.mark.parametrize('name', ['vit', 'resnet', 'densenet'])
def test_planned_masks_are_the_composed_ones(searches, name):
    search = searches[name]
    seen = set()
    for planned, composed in zip(*masks_of(search)):
        if planned.carried:
            carrier = 'outputs' if composed.inputs is None else 'inputs'
            value = getattr(composed, carrier) * composed.depth
            setattr(composed, carrier, value)
        for key in NAMES:
            actual, expected = getattr(planned, key), getattr(composed, key)
            assert (actual is None) == (expected is None)
            if actual is not None:
                seen.add(key)
                torch.testing.assert_close(actual, expected.view_as(actual))
    assert 'inputs' in seen
    assert ('outputs' in seen) == (name == 'vit')
    assert ('depth' in seen) == (name != 'densenet')


def test_gradients_of_planned_masks_are_those_of_composed_ones(searches):
    search = searches['vit']

    def gradient(masks):
        generator = torch.Generator().manual_seed(0)
        total = 0.0
        for layer in masks:
            for key in NAMES:
                mask = getattr(layer, key)
                if mask is not None:
                    if layer.depth is not None and key == 'inputs':
                        mask = mask if layer.carried else mask * layer.depth
                    noise = torch.rand(mask.numel(), generator=generator)
                    total = total + (mask.reshape(-1) * noise).sum()
        leaf = search.mutator.masks.table.flat
        return torch.autograd.grad(total, leaf, retain_graph=True)[0]

    planned, composed = masks_of(search)
    assert any(layer.carried for layer in planned)
    torch.testing.assert_close(gradient(planned), gradient(composed))


class Operations(TorchDispatchMode):
    """Counts all operations but those that only look at a tensor."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        looks = ('split', 'slice', 'detach', 'view', 'alias', 'unbind')
        self.number += not any(name in str(function) for name in looks)
        return function(*args, **(kwargs or {}))


def test_no_operation_per_layer(zoo):
    def operations(depth):
        search = zoo.algorithm(zoo.vit(48, depth, 3), 32)
        with Operations() as operations:
            search.mutator.masks.use_soft_masks()
        return operations.number

    assert 0 < operations(4) == operations(2)


def test_layers_without_masks_have_none(searches):
    search = searches['vit']
    masks_of(search)
    search.mutator.masks.use_no_masks()
    for layer in layers_of(search):
        assert all(getattr(layer.masks(), key) is None for key in NAMES)


def test_masks_shown_for_a_while_leave_the_graph_of_the_step(searches):
    search = searches['vit']
    before, _ = masks_of(search)
    values = [layer.inputs for layer in before if layer.inputs is not None]
    mutator = search.mutator
    with torch.no_grad(), mutator.masks.showing(mutator.masks.mask * 0):
        assert not any(m.inputs.any() for m in before if m.inputs is not None)
    after = [layer.inputs for layer in before if layer.inputs is not None]
    for mask, value in zip(after, values):
        assert mask.requires_grad and torch.equal(mask, value)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, 'pickle'])
def test_a_copy_reads_its_own_masks(searches, duplicate):
    search = searches['vit']
    masks_of(search)
    if duplicate == 'pickle':
        masks = search.mutator.masks
        masks.use_hard_masks()  # hooks of a graph cannot be pickled
        parts = (search.architecture, masks.table, masks.layers)
        architecture, table, plan = pickle.loads(pickle.dumps(parts))
    else:
        clone = duplicate(search)
        architecture = clone.architecture
        table, plan = clone.mutator.masks.table, clone.mutator.masks.layers
    assert table.plan is plan
    layers = [m for m in architecture.modules() if isinstance(m, DMSOp)]
    assert all(layer.masks().inputs is None for layer in layers)
    topk = search.mutator.topk
    table.show(torch.full((sum(topk.sizes),), 0.5), topk)
    assert sum(layer.masks().inputs is not None for layer in layers) > 10
    own = [layer.masks().inputs for layer in layers_of(search)]
    assert not any((mask == 0.5).all() for mask in own if mask is not None)
