import copy

import pytest
import torch
from torch import nn

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.baselines.structures import (
    STRUCTURES,
    Request,
    cut_globally,
    greedy,
    norm_scores,
    taylor_scores,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import prune


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stage = nn.Sequential(*[Block(16) for _ in range(4)])
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.wide(self.stage(self.stem(x)))
        return self.head(x.relu().mean((2, 3)))


@pytest.fixture(scope='module')
def prepared():
    torch.manual_seed(0)
    plain = Net()
    supernet = copy.deepcopy(plain)
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 8, 8)))
    mutator.prepare_from_supernet(supernet)
    return plain, supernet, mutator


def losses(supernet, number=3):
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(8, 3, 8, 8, generator=generator) for _ in range(number)
    ]
    return [
        lambda images=images: supernet(images).square().mean()
        for images in batches
    ]


def request(mutator, supernet, ratio=0.4, **kwargs):
    targets = {'macs': ratio * mutator.table.full['macs']}
    return Request(targets, 1, losses=losses(supernet), **kwargs)


@pytest.mark.parametrize('method', list(STRUCTURES))
def test_meets_the_target_and_can_be_cut(prepared, method):
    plain, supernet, mutator = prepared
    before = copy.deepcopy(mutator.state_dict())
    weights = copy.deepcopy(supernet.state_dict())
    wanted = request(mutator, supernet)
    if method == 'depth-uniform':
        found = STRUCTURES['random'](mutator, wanted)
        wanted = wanted._replace(found=found)
    structure = STRUCTURES[method](mutator, wanted)
    model = prune(copy.deepcopy(plain), structure)
    macs = count_macs(model, (1, 3, 8, 8))
    assert 0.95 < macs / wanted.targets['macs'] <= 1
    assert structure.resources['macs']['subnet'] == macs
    for old, new in (
        (before, mutator.state_dict()),
        (weights, supernet.state_dict()),
    ):
        assert all(torch.equal(old[key], new[key]) for key in old)


def test_random_structures_depend_on_the_seed_alone(prepared):
    _, supernet, mutator = prepared
    wanted = [request(mutator, supernet, seed=s) for s in (0, 0, 1)]
    found = [STRUCTURES['random'](mutator, w).units for w in wanted]
    assert found[0] == found[1] != found[2]


def test_depth_uniform_keeps_the_found_blocks(prepared):
    _, supernet, mutator = prepared
    wanted = request(mutator, supernet)
    compound = STRUCTURES['compound'](mutator, wanted)
    names = compound.stages[0].blocks
    found = compound._replace(
        stages=(compound.stages[0]._replace(kept=names[2:]),)
    )
    structure = STRUCTURES['depth-uniform'](
        mutator, wanted._replace(found=found)
    )
    assert structure.stages[0].kept == names[2:]
    with pytest.raises(DMSError, match='depth-uniform'):
        STRUCTURES['depth-uniform'](mutator, wanted)


def test_compound_scales_depth_and_width(prepared):
    _, supernet, mutator = prepared
    structure = STRUCTURES['compound'](mutator, request(mutator, supernet))
    assert 1 <= len(structure.stages[0].kept) < 4
    assert len(structure.units[0].kept) < structure.units[0].size


def test_taylor_scores_are_squared_gradients_of_the_masks(prepared):
    _, supernet, mutator = prepared
    calls = losses(supernet, number=2)
    scores = taylor_scores(mutator, calls)
    assert scores.shape == mutator.topk.importance.shape
    # By hand for one channel of the last unit: scale what reads it.
    unit = len(mutator.units) - 1
    first = sum(mutator.topk.sizes[:unit])
    expected = 0.0
    for call in calls:
        weight = supernet.head.weight
        supernet.zero_grad()
        call().backward()
        expected += float((weight[:, 3] * weight.grad[:, 3]).sum()) ** 2 / 2
    supernet.zero_grad()
    names = [unit.name for unit in mutator.units]
    index = next(i for i, n in enumerate(names) if n.startswith('wide'))
    first = sum(mutator.topk.sizes[:index])
    assert float(scores[first + 3]) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(DMSError, match='batch'):
        taylor_scores(mutator, [])


def test_a_global_threshold_removes_the_lowest_scores(prepared):
    _, supernet, mutator = prepared
    layout = mutator.topk.layout
    scores = torch.rand(layout.owner.shape)
    scores[layout.owner == 1] += 1  # nothing of it shall go
    structure = cut_globally(mutator, scores, request(mutator, supernet, 0.6))
    assert len(structure.units[1].kept) == structure.units[1].size
    assert len(structure.units[0].kept) < structure.units[0].size
    assert torch.isinf(norm_scores(mutator, 'l1')[-4:]).all()


def test_greedy_takes_what_saves_most_for_its_score(prepared):
    _, supernet, mutator = prepared
    scores = torch.ones_like(mutator.topk.importance)
    scores[-4:] = 1e9  # blocks are dear
    structure = greedy(mutator, scores, request(mutator, supernet, 0.6))
    assert len(structure.stages[0].kept) == 4
    kept = [len(u.kept) / u.size for u in structure.units]
    # With equal scores the stream, which saves most, pays first.
    stream = min(range(len(kept)), key=lambda i: kept[i])
    assert structure.units[stream].name.startswith('stem')
    scores[-4:] = 0.0
    structure = greedy(mutator, scores, request(mutator, supernet, 0.6))
    assert len(structure.stages[0].kept) < 4


@pytest.mark.parametrize('power', [1, 2])
def test_norms_of_all_that_makes_a_channel(prepared, power):
    _, supernet, mutator = prepared
    scores = norm_scores(mutator, f'l{power}')
    index = [unit.name for unit in mutator.units].index('wide')
    weight = supernet.wide.weight.detach().flatten(1)
    expected = weight.norm(power, dim=1)
    torch.testing.assert_close(
        scores[mutator.topk.layout.owner == index], expected / expected.mean()
    )
    structure = STRUCTURES[f'l{power}'](
        mutator, request(mutator, supernet, 0.6)
    )
    kept = len(structure.units[index].kept)
    best = expected.topk(kept).indices.sort().values.tolist()
    assert list(structure.units[index].kept) == best


def test_l1_with_one_ratio_for_all(prepared):
    _, supernet, mutator = prepared
    structure = STRUCTURES['l1-uniform'](
        mutator, request(mutator, supernet, 0.6)
    )
    assert 0.55 < structure.resources['macs']['ratio'] <= 0.6
    portions = [len(unit.kept) / unit.size for unit in structure.units]
    assert max(portions) - min(portions) < 0.1
    assert len(structure.stages[0].kept) == 4
    wide = next(unit for unit in structure.units if unit.name == 'wide')
    norms = supernet.wide.weight.detach().flatten(1).norm(1, dim=1)
    best = norms.topk(len(wide.kept)).indices.sort().values.tolist()
    assert list(wide.kept) == best
