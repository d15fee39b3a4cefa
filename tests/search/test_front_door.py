"""What is no plain model, or no setting, is told in a user's words."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from dms_mmrazor import DMSError, Search, apply_structure, write_card
from dms_mmrazor.models.mutators import DMSMutator

SIZE = (2, 3, 8, 8)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )


def search(model, inputs=None, target=0.5, **settings):
    inputs = torch.rand(SIZE) if inputs is None else inputs
    return Search(model, inputs, target, 4, **settings)


def searched():
    return search(network(), mutator={'verify': False}).model


def scripted():
    return torch.jit.script(network())


def within():
    return nn.Sequential(nn.Conv2d(3, 3, 1), scripted())


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda: nn.ReLU, r'is the class ReLU: make one, ReLU\(…\)'),
        (lambda: lambda x: x, 'must be an nn.Module.*got function'),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1)), 'lazy layers.*0.weight'),
        (lambda: nn.Conv2d(3, 4, 1, device='meta'), 'to_empty'),
        (scripted, 'made by torch.jit, whose'),
        (within, r'made by torch.jit \(`1`\)'),
        (lambda: nn.DataParallel(network()), '`model.module`'),
        (searched, 'searched already .*`0` is a DMSConv2d.*a fresh one'),
    ],
)
def test_what_is_no_plain_model_is_told(make, words):
    with pytest.raises(DMSError, match=f'Search: `model` .*{words}'):
        search(make(), distill={})


@pytest.mark.skipif(not hasattr(torch, 'compile'), reason='needs torch 2')
def test_a_compiled_model_is_compiled_afterwards():
    with pytest.raises(DMSError, match=r'torch\.compile\(search\.model\)'):
        search(torch.compile(network()))


def test_settings_of_a_mutator_are_no_mutator():
    with pytest.raises(DMSError, match='must be a dict of arguments.*got DMS'):
        search(network(), mutator=DMSMutator())
    with pytest.raises(DMSError, match=r'`mutator\.parse_cfg` must be a dict'):
        search(network(), mutator={'parse_cfg': 224})


def test_a_wrong_shape_is_told_as_the_user_gave_it():
    with pytest.raises(DMSError) as error:
        search(network(), torch.rand(1, 1, 8, 8))
    assert '`example_inputs`=(1, 1, 8, 8)' in str(error.value)
    assert 'what it is called with' in str(error.value)


def test_a_single_layer_is_told_so():
    with pytest.raises(DMSError, match='is a single layer'):
        search(nn.Linear(4, 2), torch.rand(1, 4))


class Product(nn.Module):
    """Multiplies outside of its layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.columns = nn.Parameter(torch.rand(8, 8))

    def forward(self, x):
        return self.two(self.one(x).relu()) @ self.columns


class Handler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture
def logged():
    logger, handler = MMLogger.get_current_instance(), Handler()
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def test_what_multiplies_is_named_if_it_is_the_model(logged):
    search(Product(), target=0.9)
    text = '\n'.join(logged)
    assert '``' not in text and '`Product`' in text


class Repeated(nn.Module):
    """A map of one channel that weighs many: the tracer adds a node."""

    def __init__(self):
        super().__init__()
        self.one, self.gate = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 1, 1)
        self.two, self.three = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.three(self.two(self.one(x) * self.gate(x)).relu())


def test_nodes_of_the_tracer_are_not_told(logged):
    search(Repeated(), target=0.9)
    assert not [text for text in logged if 'ExpandNode' in text]


def test_paths_are_paths(tmp_path):
    folder = tmp_path / 'found'
    found = search(network(), record=folder)
    for _ in range(4):
        found.model(torch.rand(SIZE)).sum().backward()
        found.step()
    subnet = found.export(tmp_path / 'subnet.yaml', divisor=1)
    plain = apply_structure(network(), tmp_path / 'subnet.yaml')
    assert plain[0].out_channels == subnet.model[0].out_channels
    assert Path(write_card(folder)).is_file()


def test_what_is_excluded_is_why_a_target_is_out_of_reach():
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)]
    narrow = [nn.Conv2d(64, 8, 1), nn.Conv2d(8, 4, 1)]
    model = nn.Sequential(*layers, *narrow)
    with pytest.raises(DMSError) as error:
        search(model, mutator={'exclude': ['0', '1']}, target=0.3)
    text = str(error.value)
    assert 'cannot be reached' in text
    assert 'of the MACs are in layers that are not searched' in text
    assert text.index('`1` 9') < text.index('`0` ')
    with pytest.raises(DMSError) as error:
        search(network(), target=1e-5)
    assert 'in layers' not in str(error.value)
