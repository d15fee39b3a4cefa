"""A search in a loop of one's own, from the model to its subnet."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

import dms_mmrazor
from dms_mmrazor import DMSError, Search, apply_structure

STEPS = 12
SIZE = (2, 3, 16, 16)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.two(self.norm(self.one(x)).relu())


def network(channels=32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1),
        nn.Sequential(Block(channels), Block(channels), Block(channels)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 4),
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images = torch.rand(8, *SIZE[1:], generator=generator)
        yield images, torch.randint(4, (8,), generator=generator)


class Loop:
    """What a user writes."""

    def __init__(self, target=0.5, **settings):
        self.model = network()
        self.search = Search(
            self.model, torch.rand(SIZE), target, STEPS, **settings
        )
        self.optimizer = torch.optim.SGD(
            self.search.model.parameters(), lr=0.05, momentum=0.9
        )

    def train(self, until=STEPS, parts=1):
        for index, (images, labels) in enumerate(batches()):
            if not self.search.iteration <= index < until:
                continue
            for x, y in zip(images.chunk(parts), labels.chunk(parts)):
                loss = F.cross_entropy(self.search.model(x), y) / parts
                loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.search.step()
        return self

    def state(self):
        parts = self.search, self.model, self.optimizer
        return copy.deepcopy([part.state_dict() for part in parts])

    def load(self, states):
        parts = self.search, self.model, self.optimizer
        for part, state in zip(parts, states):
            part.load_state_dict(state)
        return self


@pytest.fixture(scope='module')
def finished():
    return Loop({'macs': 0.5, 'params': 0.7}).train()


def test_a_search_reaches_its_target_and_exports(finished, tmp_path):
    search, log = finished.search, finished.search.log
    assert log['phase'] == 'refine'
    ratios = [
        log[f'{kind}_ratio'] - log[f'{kind}_target']
        for kind in ('macs', 'params')
    ]
    # Blocks become whole in the last steps of so short a search.
    assert -0.01 < max(ratios) < 0.0025
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path, divisor=1)
    assert subnet.difference <= 1e-5
    assert subnet.structure.resources['macs']['ratio'] <= 0.5
    plain = apply_structure(network(), path)
    plain.load_state_dict(subnet.model.state_dict())
    finished.model.eval()
    image = torch.rand(SIZE)
    assert torch.equal(plain.eval()(image), subnet.model.eval()(image))
    loss = F.cross_entropy(plain.train()(image), torch.tensor([0, 1]))
    loss.backward()
    assert not any(
        hook for m in plain.modules() for hook in m._forward_pre_hooks.values()
    )
    assert 'searched' in search.report()


def test_a_search_away_from_its_target_says_so(monkeypatch):
    """The widths of this network are multiples of 8 up to 32."""
    texts = []
    monkeypatch.setattr(
        'dms_mmrazor.search.search.print_log',
        lambda text, **kwargs: texts.append(text),
    )
    loop = Loop(0.33).train()
    loop.search.mutator.topk.pruning_ratio.data.fill_(0.9)
    loop.search.export()
    far, loose = texts
    assert 'below its macs target' in far and '`Search.decay`' in far
    assert 'under its macs target' in loose and '`Search.export`' in loose
    texts.clear()
    loop.search.iteration -= 1  # an unfinished one has no target yet
    loop.search.export()
    (unfinished,) = texts
    assert f'{STEPS - 1} of {STEPS} steps are made' in unfinished


def test_an_unfinished_search_says_so_unless_a_milestone_is_due(monkeypatch):
    texts = []
    monkeypatch.setattr(
        'dms_mmrazor.search.search.print_log',
        lambda text, **kwargs: texts.append(text),
    )
    loop = Loop(milestones=['75%'])
    for index in range(STEPS):
        loop.train(until=index + 1)
        if 'milestone' in loop.search.log:
            break
    loop.search.export(divisor=1)
    assert not texts and index < STEPS - 1
    loop.train(until=index + 2).search.export()
    (text,) = texts
    assert 'not cut to its target' in text and 'optimizer steps' in text


def test_a_state_of_another_search_is_told(monkeypatch):
    texts = []
    monkeypatch.setattr(
        'dms_mmrazor.search.loop_settings.print_log',
        lambda text, **kwargs: texts.append(text),
    )
    states = Loop().train(until=2).state()
    Loop().load(states)
    assert not texts
    Loop(0.25, schedule='linear', milestones=['50%']).load(states)
    told = '\n'.join(texts)
    assert 'target.macs: 0.5 → 0.25' in told
    assert "schedule: 'exponential' → 'linear'" in told
    assert "milestones: None → {'subnet-50'" in told
    texts.clear()
    states[0].pop('settings')  # of an earlier version
    assert Loop(0.25).load(states).search.iteration == 2 and not texts


def test_a_step_after_evaluation_mode_says_so():
    loop = Loop()
    loop.model.eval()(torch.rand(SIZE)).sum().backward()
    with pytest.raises(DMSError, match=r'evaluation mode: call `model\.train'):
        loop.search.step()
    loop.model.train()
    loop.train(until=1)
    with pytest.raises(DMSError, match='needs a forward pass of'):
        loop.search.step()


def test_a_search_goes_on_to_the_bit():
    whole = Loop().train()
    states = Loop().train(until=7).state()
    resumed = Loop().load(states).train()
    for one, other in zip(whole.state(), resumed.state()):
        assert str(one) == str(other)
    for kind, value in whole.search.resources().items():
        assert resumed.search.resources()[kind] == value


def test_parts_of_a_batch_count_as_one():
    """Without batch statistics, which differ."""
    ratios = []
    for parts in (1, 2):
        loop = Loop()
        for module in loop.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
                module.track_running_stats = False
        loop.train(until=1, parts=parts)
        ratios.append(loop.search.mutator.topk.pruning_ratio.detach())
    assert torch.allclose(*ratios, atol=1e-3)


def test_a_copy_of_the_model_shows_the_same_masks():
    """An average of weights is evaluated with the present structure."""
    loop = Loop()
    average = AveragedModel(loop.search.model)
    loop.train()
    average.module.load_state_dict(loop.model.state_dict())
    image = torch.rand(SIZE)
    outputs = [m.eval()(image) for m in (loop.model, average)]
    assert torch.equal(*outputs)
    assert loop.search.resources()['macs'] < loop.search.targets['macs'] * 1.1


@pytest.mark.skipif(
    not hasattr(torch, 'amp') or not hasattr(torch.amp, 'GradScaler'),
    reason='no loss scaler for a CPU on this torch',
)
@pytest.mark.parametrize('backoff', [0.5, 1.0], ids=['lowered', 'static'])
def test_a_skipped_step_changes_nothing(backoff):
    """A static scale does not move when a step is skipped."""
    loop = Loop()
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    scaler.set_backoff_factor(backoff)
    loop.search.use_scaler(scaler, loop.optimizer)
    topk = loop.search.mutator.topk
    moved = []
    for broken, (images, labels) in zip((False, True, False), batches()):
        before = copy.deepcopy(topk.state_dict())
        loss = F.cross_entropy(loop.search.model(images), labels)
        scaler.scale(loss).backward()
        if broken:  # a weight's gradient alone overflows
            loop.model[0].weight.grad.fill_(float('inf'))
        scaler.step(loop.optimizer)
        scaler.update()
        loop.optimizer.zero_grad()
        loop.search.step()
        after = topk.state_dict()
        moved.append(any(not torch.equal(before[k], after[k]) for k in after))
    assert moved == [True, False, True]
    assert scaler.get_scale() == 2.0**10 * backoff


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(target=2.0), 'Search.target'),
        (dict(target=1e-4), 'cannot be reached'),
        (dict(target={}), '`target` is empty'),
        (dict(target={'latency': 0.5}), 'latency_table'),
        (dict(target={'flops': 0.5}), "unknown resource 'flops'"),
        (dict(decay=2), 'Search: `decay`'),
        (dict(decay='2 epochs'), 'epochs'),
        (dict(loss_weight=-1), 'loss_weight'),
        (dict(hold_depth='no'), 'Search.hold_depth'),
        (dict(structure_step={'rule': 'sgd'}), 'structure_step'),
        (dict(mutator={'exclude': ['nowhere']}), 'nowhere'),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(DMSError) as error:
        Loop(**{'target': 0.5, **settings})
    assert words in str(error.value)


def test_bad_calls_are_named(finished):
    with pytest.raises(DMSError, match='example_inputs'):
        Search(network(), [1, 2], 0.5, 5)
    with pytest.raises(DMSError, match='total_steps'):
        Search(network(), torch.rand(SIZE), 0.5, 0)
    loop = Loop()
    with pytest.raises(DMSError, match=r'`step\(\)` needs a forward pass'):
        loop.search.step()
    loop.search.model(torch.rand(SIZE))
    with pytest.raises(DMSError, match=r'needs `loss\.backward\(\)`'):
        loop.search.step()
    with pytest.raises(DMSError, match='all total_steps=12 are made'):
        finished.model.train()(torch.rand(SIZE))
    state = finished.search.state_dict()
    other = Search(network(16), torch.rand(SIZE), 0.5, STEPS)
    with pytest.raises(DMSError, match='other units'):
        other.load_state_dict(state)
    with pytest.raises(DMSError):
        apply_structure(network(16), finished.search.export().structure)


def test_public_names():
    assert dms_mmrazor.Search is Search
    with pytest.raises(AttributeError, match='Surch'):
        getattr(dms_mmrazor, 'Sur' + 'ch')
