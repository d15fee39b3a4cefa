"""The structure step of a real supernet, driven without any runner."""

import math

import pytest
import torch
from torch import nn

from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.core import RULES
from dms_mmrazor.errors import DMSError
from dms_mmrazor.search import StructureSearch
from dms_mmrazor.search.export import export_subnet

KINDS = ('macs', 'params')
STEPS = 18


@pytest.fixture
def build(zoo):
    """Build a search of constrained resources; equal calls, equal weights."""

    def build(weights, depth=18, **settings):
        search = zoo.algorithm(zoo.cifar_resnet(depth))
        search.structure = StructureSearch(search.mutator, settings)
        search.structure.step.set_length(STEPS)
        search.set_constraints(weights)
        return search.train()

    return build


@pytest.fixture
def step(batch):
    """Take a training step of a search, each time with other images."""

    def step(search, portions, seed):
        set_portions(search, portions)
        backward(search, batch(2, seed=seed))
        search.finish_step()

    return step


def set_portions(search, portions):
    full = search.mutator.table.full
    targets = {kind: full[kind] * part for kind, part in portions.items()}
    search.set_targets(targets)


def backward(search, data, portion=1.0):
    losses = search(**data, mode='loss')
    (portion * losses['loss']).backward()
    return losses


def state_of(search):
    """All that a step may change, as copies."""
    masks = search.mutator.masks
    parts = dict(masks=masks, structure=search.structure)
    state = {
        f'{part}.{name}': value.detach().clone()
        for part, module in parts.items()
        for named in (module.named_parameters(), module.named_buffers())
        for name, value in named
    }
    del state['masks.mask_grad']  # a step takes it, whatever it is worth
    return state


def randomize(mutator, seed=0):
    """Ratios within their limits, and importances without ties."""
    generator = torch.Generator().manual_seed(seed)
    topk = mutator.topk
    lower, upper = topk.limits()
    with torch.no_grad():
        part = torch.rand(lower.shape, generator=generator)
        ratio = lower + (0.1 + 0.8 * part) * (upper - lower)
        topk.pruning_ratio.copy_(ratio)
        order = torch.randperm(len(topk.importance), generator=generator)
        topk.importance.copy_(order)
        topk.num_updates.fill_(1)


def log_resource(mutator, kind, ratio):
    """Equations 2, 3 and 8 by hand, from ratios [U] in float64."""
    topk, number = mutator.topk, len(mutator.units)
    sizes = torch.tensor(topk.sizes, dtype=torch.float64)
    kept = ((1 - ratio) * sizes)[:number]
    blocks = []
    for index in range(number, len(topk.sizes)):
        importance = topk.split(topk.importance)[index]
        rank = importance.argsort().argsort().double()
        size = len(importance)
        distance = (rank + 0.5) / size - ratio[index]
        blocks.append(torch.sigmoid(4 * size * distance))
    return math.log(mutator.table.evaluate(kind, kept, torch.cat(blocks)))


def block_order(mutator):
    """Which blocks are preferred: what they cost may differ."""
    topk = mutator.topk
    return topk.rank(topk.importance)[mutator.masks.num_channels :].tolist()


def test_constraint_gradients_equal_finite_differences(build, monkeypatch):
    search = build({'macs': 1.0, 'params': 2.0}, depth=34)
    mutator = search.mutator
    mutator.masks.double()
    randomize(mutator)
    set_portions(search, {'macs': 0.5, 'params': 0.25})
    ratio = mutator.topk.pruning_ratio.detach().clone()
    assert ratio.dtype == torch.float64
    logs = {kind: log_resource(mutator, kind, ratio) for kind in KINDS}
    expected, width = [], 1e-5
    for kind in KINDS:
        for change in width * torch.eye(len(ratio), dtype=torch.float64):
            ends = [
                log_resource(mutator, kind, end)
                for end in (ratio + change, ratio - change)
            ]
            expected.append((ends[0] - ends[1]) / (2 * width))
    received, structure = [], search.structure
    monkeypatch.setattr(
        structure.step, 'move_', lambda *args: received.append(args[2])
    )
    structure.begin()
    structure.finish()
    (constraint,) = received
    expected = torch.tensor(expected, dtype=torch.float64).view(2, -1)
    torch.testing.assert_close(constraint.grad, expected, rtol=1e-7, atol=1e-9)
    # Every unit has a share of every resource.
    assert (constraint.grad < 0).all()
    full = mutator.table.full
    excess = [
        logs[kind] - math.log(portion * full[kind])
        for kind, portion in zip(KINDS, (0.5, 0.25))
    ]
    assert constraint.excess.tolist() == pytest.approx(excess, rel=1e-9)
    assert constraint.weight.tolist() == [1, 2]


def test_losses_are_those_of_equation_7(build):
    search = build({'macs': 0.5, 'params': 3.0})
    randomize(search.mutator)
    ratio = search.mutator.topk.pruning_ratio.detach().double()
    full, structure = search.mutator.table.full, search.structure
    share = {
        kind: math.exp(log_resource(search.mutator, kind, ratio)) / full[kind]
        for kind in KINDS
    }
    # One resource is above its target, the other is below.
    portions = {'macs': 0.8 * share['macs'], 'params': 1.1 * share['params']}
    set_portions(search, portions)
    structure.begin()
    losses = structure.losses()
    expected = {'loss_macs': 0.5 * math.log(1 / 0.8), 'loss_params': 0.0}
    for kind in KINDS:
        expected[f'{kind}_ratio'] = share[kind]
        expected[f'{kind}_target'] = portions[kind]
    assert not any(loss.requires_grad for loss in losses.values())
    found = {name: float(loss) for name, loss in losses.items()}
    assert found == pytest.approx(expected, rel=1e-5)
    # Both above: each has its own weight.
    set_portions(search, {kind: 0.5 * share[kind] for kind in KINDS})
    losses = structure.losses()
    found = [float(losses[f'loss_{kind}']) for kind in KINDS]
    assert found == pytest.approx([0.5 * math.log(2), 3 * math.log(2)], 1e-5)


def test_without_a_target_there_is_no_loss(build):
    search = build({'macs': 1.0})
    search.structure.begin()
    losses = search.structure.losses()
    found = {name: float(loss) for name, loss in losses.items()}
    assert found == dict(loss_macs=0, macs_ratio=1, macs_target=1)


@pytest.mark.parametrize(
    'weights, last',
    [
        ({'macs': 1.0}, {'macs': 0.6}),
        ({'macs': 1.0, 'params': 1.0}, {'macs': 0.6, 'params': 0.6}),
        ({'macs': 1.0, 'params': 2.0}, {'macs': 0.7, 'params': 0.5}),
    ],
)
def test_a_falling_target_is_followed(build, step, weights, last):
    """To 0.5 % in each step, without a lag, by the constraints together."""
    search = build(weights, rule='price')
    mutator, rows = search.mutator, []
    for index in range(STEPS):
        part = (index + 1) / STEPS
        portions = {kind: end**part for kind, end in last.items()}
        order = block_order(mutator)
        step(search, portions, index)
        # The step counts with the masks that the layers saw: the first ones
        # prune nothing, and other blocks than those may now be preferred.
        if index and order == block_order(mutator):
            full = mutator.table.full
            row = [
                mutator.resource(kind, hard=False) / (full[kind] * portion)
                for kind, portion in portions.items()
            ]
            # None is exceeded, and the nearest one is used up.
            assert max(row) == pytest.approx(1, abs=0.005), index
            rows.append(row)
    assert len(rows) >= STEPS // 2
    if len(set(last.values())) == 1:  # targets that can be met together
        assert rows[-1] == pytest.approx([1] * len(last), abs=0.005)


def test_a_step_needs_a_forward_pass(build, step):
    search = build({'macs': 1.0})
    before = state_of(search)
    with pytest.raises(DMSError):
        search.finish_step()
    for name, value in state_of(search).items():
        assert torch.equal(value, before[name]), name
    # The masks of a step that is done are not those of another one.
    step(search, {'macs': 0.9}, 0)
    with pytest.raises(DMSError):
        search.finish_step()


@pytest.mark.parametrize(
    'rule, bad',
    [*((rule, 'scale') for rule in RULES), ('price', 'inf'), ('price', 'nan')],
)
def test_a_gradient_that_is_not_finite_changes_nothing(
    build, batch, step, rule, bad
):
    search, other = (build({'macs': 1.0}, rule=rule) for _ in range(2))
    portions = {'macs': 0.8}
    for index in range(2):
        step(search, portions, index)
        step(other, portions, index)
    backward(search, batch(2, seed=2))
    before = state_of(search)
    if bad == 'scale':
        search.finish_step(torch.tensor(float('nan')))
    else:  # in one mask alone
        search.mutator.masks.mask_grad[3] = float(bad)
        search.finish_step()
    for name, value in state_of(search).items():
        assert torch.equal(value, before[name]), name
    # The next step is what it would have been.
    for one in (search, other):
        step(one, portions, 3)
    expected = state_of(other)
    for name, value in state_of(search).items():
        torch.testing.assert_close(value, expected[name], msg=name)
        assert torch.isfinite(value).all(), name
    ratio = 'masks.topk.pruning_ratio'
    assert not torch.equal(expected[ratio], before[ratio])


def test_a_loss_scale_is_taken_out(build, batch, step):
    """A scaled loss with its scale moves as the loss itself."""
    states = []
    for scale in (1.0, 256.0):
        search = build({'macs': 1.0})
        step(search, {'macs': 0.9}, 0)
        backward(search, batch(2, seed=1), scale)
        search.finish_step(torch.tensor(scale))
        states.append(state_of(search))
    for name, value in states[1].items():
        torch.testing.assert_close(value, states[0][name], msg=name)


def test_half_batches_accumulate(build, batch, step):
    data = batch(4, seed=1)
    halves = [
        {key: value[half] for key, value in data.items()}
        for half in (slice(0, 2), slice(2, 4))
    ]
    searches, grads = [], []
    for parts in ([data], halves, halves[:1]):
        search = build({'macs': 1.0})
        step(search, {'macs': 0.9}, 0)
        for module in search.modules():
            # Statistics of a batch are not those of its halves.
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        for part in parts:
            backward(search, part, 1 / len(parts))
        grads.append(search.mutator.masks.mask_grad.clone())
        search.finish_step()
        searches.append(search)
    tolerance = 1e-5 * float(grads[0].abs().max())
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=tolerance)
    assert (grads[2] - grads[0]).abs().max() > 1e3 * tolerance
    whole, half, _ = (search.mutator.topk for search in searches)
    for name in ('pruning_ratio', 'importance'):
        torch.testing.assert_close(
            getattr(half, name), getattr(whole, name), rtol=1e-3, atol=1e-6
        )
    assert int(half.num_updates) == int(whole.num_updates) == 2


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'weight_decay': 0.0}, ('weight_decay', '`rule`')),
        ({'rule': 'sgd'}, ('rule', "'sgd'")),
        ({'rule': ['price']}, ('rule', "['price']")),
        ({'lr': 0}, ('lr', '0')),
        ({'lr': -0.1}, ('lr', '-0.1')),
        ({'lr': '0.1'}, ('lr', "'0.1'")),
        ({'lr': True}, ('lr', 'True')),
        ({'lr': float('inf')}, ('lr', 'inf')),
        ({'lr': float('nan')}, ('lr', 'nan')),
        ({'average': 1}, ('average', '1')),
        ({'average': -0.1}, ('average', '-0.1')),
        ({'average': float('nan')}, ('average', 'nan')),
    ],
)
def test_bad_settings_are_named(build, settings, words):
    mutator = build({}).mutator
    with pytest.raises(DMSError) as error:
        StructureSearch(mutator, settings)
    for word in ('`structure_step', *words):
        assert word in str(error.value)


@pytest.mark.parametrize('settings', [None, {}, {'lr': None}])
def test_defaults(build, settings):
    step = StructureSearch(build({}).mutator, settings).step
    assert (step.rule, step.average) == (RULES[0], 0.9)


@pytest.mark.parametrize('method', list(MASKS))
def test_other_masks_are_searched_and_exported(zoo, batch, method):
    """By the same step, under the same limits, to a plain subnet."""
    mutator = dict(method=method)
    search = zoo.algorithm(zoo.cifar_resnet(18), mutator=mutator).train()
    assert type(search.mutator.topk) is MASKS[method]
    full = search.mutator.table.full['macs']
    search.set_constraints({'macs': 1.0})
    search.structure.step.set_length(8)
    if method != 'minmax':
        search.structure.step.lr = 1.5  # eight steps have to suffice
    for seed in range(8):
        search.set_targets({'macs': 0.2 * full})
        backward(search, batch(2, seed=seed))
        search.finish_step()
    assert search.mutator.resource('macs', hard=False) < 0.9 * full
    targets = {'macs': 0.5 * full}
    subnet = export_subnet(search, targets, divisor=1)
    row = subnet.structure.resources['macs']
    assert 0.99 * row['target'] < row['subnet'] <= row['target']
    assert subnet.difference <= 1e-5


def test_logits_have_no_prices(zoo):
    mutator = zoo.algorithm(
        zoo.cifar_resnet(18), mutator=dict(method='mes')
    ).mutator
    with pytest.raises(DMSError, match='structure_step.rule.*mes'):
        StructureSearch(mutator, dict(rule='price'))
    with pytest.raises(DMSError, match='mutator.method.*nonsense'):
        zoo.algorithm(zoo.cifar_resnet(18), mutator=dict(method='nonsense'))


def test_prices_by_importance(build, batch):
    """Σ λ m (1 − m) c of each unit, by hand, in place of the gradient."""
    search = build({'macs': 1.0}, signal='importance')
    mutator = search.mutator
    randomize(mutator)
    mutator.topk.num_updates.fill_(10**6)  # the average has no start left
    set_portions(search, {'macs': 0.5})
    backward(search, batch(2))
    topk = mutator.topk
    grad = mutator.masks.take_gradient(None)
    found = search.structure.task(grad)
    mask = topk.soft_mask().detach()
    slope = topk.layout.temperature * mask * (1 - mask)
    expected = topk.layout.sum_elements(slope * topk.importance)
    torch.testing.assert_close(found, expected)
    assert (search.structure.task(grad, 'gradient') != found).any()
    assert torch.isnan(search.structure.task(grad * math.nan)).all()


@pytest.mark.parametrize('metric', ['index', 'gradient'])
def test_importances_that_are_no_losses_are_no_signal(zoo, metric):
    importance = dict(metric=metric)
    mutator = zoo.algorithm(
        zoo.cifar_resnet(18), mutator=dict(importance=importance)
    ).mutator
    with pytest.raises(DMSError, match=f'structure_step.signal.*{metric}'):
        StructureSearch(mutator, dict(signal='importance'))
    with pytest.raises(DMSError, match='structure_step.signal.*loud'):
        StructureSearch(mutator, dict(signal='loud'))
