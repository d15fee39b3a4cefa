"""Steps of the resource loss near its target."""

import copy

import pytest

LR = 2e-2


@pytest.fixture
def search(zoo):
    """A search at a tenth of its MACs, where gradients are large."""
    search = zoo.algorithm(zoo.cifar_resnet(18))
    search.mutator.topk.pruning_ratio.data.fill_(0.68)
    search.mutator.masks.hold_depth()
    search.train()
    return search


def after_a_step(search, portion, landing, kinds=('macs',), weight=1.0):
    """Resource relative to the target, before and after one step of SGD."""
    targets = {
        kind: portion * search.mutator.resource(kind, hard=False)
        for kind in kinds
    }
    search.set_constraints(
        dict.fromkeys(kinds, weight), LR if landing else None
    )
    search.set_targets(targets)
    search.mutator.masks.use_soft_masks()
    losses = search.resource_losses()
    sum(losses[f'loss_{kind}'] for kind in kinds).backward()
    (ratio,) = search.structural_parameters()
    ratio.data -= LR * ratio.grad
    ratio.grad = None
    return {
        kind: search.mutator.resource(kind, hard=False) / target
        for kind, target in targets.items()
    }


def test_a_step_from_just_above_falls_below(search):
    """The weakness of Eq. 7: its gradient does not vanish at the target."""
    assert after_a_step(search, 0.999, landing=False)['macs'] < 0.98


@pytest.mark.parametrize('weight', [0.3, 1.0, 3.0])
@pytest.mark.parametrize('portion', [0.999, 0.99])
def test_a_soft_step_ends_at_the_target(search, portion, weight):
    found = after_a_step(search, portion, landing=True, weight=weight)
    assert found['macs'] == pytest.approx(1, abs=0.1 * (1 - portion))


def test_far_above_it_is_the_same(search):
    other = copy.deepcopy(search)
    plain = after_a_step(search, 0.5, landing=False)
    assert after_a_step(other, 0.5, landing=True) == plain
    assert 1 < plain['macs'] < 2


@pytest.mark.parametrize('portion', [1.0, 1.1])
def test_nothing_happens_at_or_below(search, portion):
    found = after_a_step(search, portion, landing=True)
    assert found['macs'] == pytest.approx(1 / portion)


def test_two_targets_fall_less_far_below(search):
    kinds = ('macs', 'params')
    soft = after_a_step(search, 0.999, True, kinds)
    assert all(0.995 < ratio <= 1.0 for ratio in soft.values())
