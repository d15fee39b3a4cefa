"""What is no plain model, or no setting, is told in a user's words."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn
from torch.cuda.amp import GradScaler

from dms_mmrazor import DMSError, Search, apply_structure, write_card
from dms_mmrazor.models.mutators import DMSMutator

SIZE = (2, 3, 8, 8)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )


def wide():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 4, 1)
    )


def sgd(search):
    return torch.optim.SGD(search.model.parameters(), lr=0.1)


def search(model, inputs=None, target=0.5, **settings):
    inputs = torch.rand(SIZE) if inputs is None else inputs
    return Search(model, inputs, target, 4, **settings)


def searched():
    return search(network(), mutator={'verify': False}).model


def units(units, **default_args):
    return dict(channel_unit_cfg=dict(units=units, default_args=default_args))


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


SETTINGS = [
    (dict(target={'FLOPs': 0.5}), ["'FLOPs'", "Did you mean 'macs'"]),
    (dict(target={'parameters': 1}), ["'parameters'", "mean 'params'"]),
    (dict(target={None: 0.5}), ['resource None', "'macs'"]),
    (dict(target=('macs', 0.5)), ['Search.target', "('macs', 0.5)"]),
    (dict(target='50'), ["'50%' or 0.5", 'absolute']),
    (dict(target='150%'), ['more than the supernet']),
    (dict(target={'macs': 0.5}, resource='params'), ['remove `resource`']),
    (dict(milestones=['']), ['`Search.milestones[0] (macs)`', "''"]),
    (dict(milestones=[75]), ['Search.milestones[0]', "'75%' or 0.75"]),
    (dict(milestones=[0.3]), ['must fall', 'the target (', 'before it (']),
    (dict(milestones=[True]), ['Search.milestones[0]', 'got True']),
    (dict(milestones=0.75), ['`milestones` must be a list', '0.75']),
    (dict(settle='long'), ['`settle`', "'10%'", "'long'"]),
    (dict(warmup='ten%'), ['`warmup`', "'ten%'"]),
    (dict(warmup='1 epoch'), ['`warmup`', "a loop of one's own"]),
    (dict(schedule='exp'), ['`schedule`', "'exponential'", "'exp'"]),
    (dict(loss_weight=True), ['`loss_weight` of macs', 'True']),
    (dict(latency_device='cpu'), ['`latency_device`', '`latency_table`']),
    (dict(record=5), ['`record` must be a folder', 'got 5']),
    (dict(record=''), ['`record` must be a folder', "got ''"]),
    (dict(record=__file__), ['`record` must be a folder', 'is a file']),
]

MUTATORS = [
    (dict(excludes=['0']), ["'excludes'", "mean one of ['exclude'"]),
    (dict(type='ChannelMutator'), ['DMSMutator', 'got ChannelMutator']),
    (
        dict(parse_cfg=dict(demo_input=SIZE)),
        ['parse_cfg.demo_input', 'remove'],
    ),
    (dict(parse_cfg=dict(fix=['0'])), ['mutator.parse_cfg', "'fix'", 'fixed']),
    (dict(channel_unit_cfg=8), ['channel_unit_cfg', 'got 8']),
    (dict(channel_unit_cfg=False), ['channel_unit_cfg', 'got False']),
    (dict(depth_unit_cfg='none'), ['depth_unit_cfg', "got 'none'"]),
    (units({0: dict(init_args=dict(step=8))}), ['as texts, got 0', "'0'"]),
    (units({'0': dict(init_args=dict(step='8'))}), ['`step`', "got '8'"]),
    (units({}, step=True), ['`step`', 'got True']),
    (units({}, min_ratio='0.5'), ['`min_ratio`', "got '0.5'"]),
    (units({}, max_ratio=True), ['`max_ratio`', 'got True']),
    (units({}, follows='0', mask_step='2'), ['`mask_step`', "got '2'"]),
    (dict(depth_unit_cfg=dict(units={'layer1': {}})), ["'layer1'", 'stage']),
    (dict(exclude=['9']), ["'9'", "'2'"]),
]


@pytest.mark.parametrize('settings, words', SETTINGS)
def test_a_setting_that_cannot_be_meant(settings, words):
    with pytest.raises(DMSError) as error:
        search(network(), mutator={'verify': False}, **settings)
    text = str(error.value)
    assert all(word in text for word in words) and '\n' not in text, text


@pytest.mark.parametrize('settings, words', MUTATORS)
def test_a_setting_of_the_mutator_that_cannot_be_meant(settings, words):
    with pytest.raises(DMSError) as error:
        search(network(), mutator=settings)
    text = str(error.value)
    assert all(word in text for word in words) and '\n' not in text, text
    assert 'placeholder' not in text


def test_what_is_written_in_other_words_is_understood():
    """Percents, and a mutator as a config has it."""
    settings = dict(
        type='mmrazor.DMSMutator', channel_unit_cfg=dict(units=None)
    )
    parts = dict(warmup='25%', decay='50 %', mutator=settings)
    made = search(network(), target='50%', **parts)
    assert made.targets['macs'] == 0.5 * made.mutator.table.full['macs']


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


def trained(**settings):
    settings = {'mutator': {'verify': False}, **settings}
    found = search(network(), **settings)
    found.model(torch.rand(SIZE)).sum().backward()
    found.step()
    return found


CALLS = [
    (lambda s: s.export('subnet.pth'), ["'subnet.pth'", 'YAML', 'torch.save']),
    (lambda s: s.export('.'), ["'.' is a folder"]),
    (lambda s: s.export(5), ['`path`', 'got 5']),
    (lambda s: s.export(metrics=0.9), ['Search.export', "{'accuracy'", '0.9']),
    (lambda s: s.note({'accuracy': 0.9}), ['would be lost', "record='"]),
    (lambda s: s.note({'accuracy': 'high'}), ["['accuracy']", "'high'"]),
    (lambda s: s.note(0.9), ['Search.note', 'got 0.9']),
    (lambda s: s.load_state_dict(None), ['search.state_dict()', 'NoneType']),
    (
        lambda s: s.load_state_dict(s.model.state_dict()),
        ["no 'iteration'", 'search.model.load_state_dict'],
    ),
    (
        lambda s: s.load_state_dict(search(wide()).state_dict()),
        ["'0: 24' in the state, '0: 16' here"],
    ),
    (lambda s: s.use_scaler(sgd(s), GradScaler()), ['GradScaler, got SGD']),
    (lambda s: s.use_scaler(GradScaler(), None), ['optimizer', 'NoneType']),
    (
        lambda s: torch.jit.trace(s.model, torch.rand(SIZE)),
        ['supernet', 'search.export()'],
    ),
]


@pytest.mark.parametrize('call, words', CALLS)
def test_a_call_that_cannot_be_meant(call, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DMSError) as error:
        call(trained())
    text = str(error.value)
    assert all(word in text for word in words) and '\n' not in text, text
    assert not list(tmp_path.iterdir())


STRUCTURES = [
    (lambda subnet: (network(), subnet), ['got ExportedSubnet']),
    (lambda subnet: (network(), None), ['got NoneType']),
    (lambda subnet: ('subnet.yaml', network()), ['`model`', 'got str']),
    (lambda subnet: (nn.ReLU, 'subnet.yaml'), ['the class ReLU']),
    (lambda subnet: (searched(), 'subnet.yaml'), ['searched already']),
    (lambda subnet: (network(), '.'), ['. is a folder']),
    (
        lambda subnet: (wide(), 'subnet.yaml'),
        ['subnet.yaml: ', 'another arch'],
    ),
    (
        lambda subnet: (subnet.model, 'subnet.yaml'),
        ['subnet.yaml: ', 'another arch'],
    ),
]


def test_structures_of_something_else(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = trained()
    found.iteration = 4  # as if the search were over
    subnet = found.export('subnet.yaml', divisor=1)
    for make, words in STRUCTURES:
        with pytest.raises(DMSError) as error:
            apply_structure(*make(subnet))
        assert all(word in str(error.value) for word in words), error.value


def test_what_is_printed_is_short():
    subnet = trained().export()
    assert len(repr(subnet)) < 200 and '100.0% of the macs' in repr(subnet)


def test_a_search_follows_its_model_to_another_device():
    found = trained()
    found.model.to('meta')
    found.model(torch.rand(SIZE, device='meta')).sum().backward()
    found.step()
    parts = [found.mutator, found.structure]
    state = [
        t for part in parts for t in (*part.parameters(), *part.buffers())
    ]
    assert state and all(tensor.is_meta for tensor in state)


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
