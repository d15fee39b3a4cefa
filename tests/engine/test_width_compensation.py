"""Widths keep a search at its target while its depth becomes hard."""

import pytest
import torch

from dms_mmrazor.engine.width_compensation import widths_follow

KINDS = ('macs', 'params')


@pytest.fixture
def mutator(zoo):
    """In the middle of a search; a half-kept block in each stage."""
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    topk = mutator.topk
    generator = torch.Generator().manual_seed(0)
    topk.importance.copy_(
        torch.rand(topk.importance.shape, generator=generator)
    )
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(0.2)
    half_kept(mutator, drop=True)
    return mutator


def half_kept(mutator, drop):
    """Masks of one block of each stage just below (above) 1/2."""
    for index, stage in enumerate(mutator.depth_units, len(mutator.units)):
        ratio = (0.5 if drop else 0.49) / stage.num_blocks + 0.002 * drop
        mutator.topk.pruning_ratio.data[index] = ratio


def relative(mutator, targets):
    return {
        kind: mutator.resource(kind, hard=False) / target
        for kind, target in targets.items()
    }


def hold(mutator, targets, steps, follow=True):
    """Resources relative to the targets and mean widths after each step."""
    found = []
    for step in range(1, steps + 1):
        if follow:
            with widths_follow(mutator, targets):
                _harden(mutator, step, steps)
        else:
            _harden(mutator, step, steps)
        kept = mutator.masks.kept().detach().clone()
        found.append((relative(mutator, targets), kept))
    assert mutator.topk.held.max() == 1
    assert torch.equal(
        mutator.masks.soft_blocks(), mutator.masks.hard_blocks()
    )
    return found


def _harden(mutator, step, steps):
    if step == 1:
        mutator.masks.hold_depth()
    mutator.topk.harden_(step / steps)


def targets_of(mutator, **portions):
    return {
        kind: mutator.resource(kind, hard=False) / portion
        for kind, portion in portions.items()
    }


def test_alone_the_resource_falls_evenly(mutator):
    """What there is to make up for."""
    targets = targets_of(mutator, macs=1.0)
    found = hold(mutator, targets, 10, follow=False)
    ratios = [1.0] + [row['macs'] for row, _ in found]
    falls = [one - two for one, two in zip(ratios, ratios[1:])]
    assert sum(falls) > 0.08
    assert falls == pytest.approx([sum(falls) / 10] * 10, rel=1e-3)


@pytest.mark.parametrize('steps, error', [(1, 0.01), (10, 5e-4)])
def test_widths_make_up_for_dropped_blocks(mutator, steps, error):
    before = mutator.masks.kept().detach().clone()
    targets = targets_of(mutator, macs=0.99)
    found = hold(mutator, targets, steps)
    for row, kept in found:
        assert row['macs'] == pytest.approx(0.99, rel=error)
        assert (kept > before).all()
        before = kept
    # One number for all units: portions of a unit stay what they were.
    ratio = mutator.topk.pruning_ratio[: len(mutator.units)]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_kept_blocks_are_left_to_the_loss(mutator):
    half_kept(mutator, drop=False)
    before = mutator.masks.kept().detach().clone()
    found = hold(mutator, targets_of(mutator, macs=1.0), 4)
    ratios = [row['macs'] for row, _ in found]
    assert ratios == sorted(ratios) and ratios[-1] > 1.05
    assert torch.equal(found[-1][1], before)


def test_above_the_target_a_fall_is_welcome(mutator):
    before = mutator.masks.kept().detach().clone()
    found = hold(mutator, targets_of(mutator, macs=1.03), 10)
    ratios = [row['macs'] for row, _ in found]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == pytest.approx(1.0, rel=1e-3)
    assert torch.equal(found[0][1], before)
    assert (found[-1][1] > before).all()


def test_the_nearest_target_counts(mutator):
    found = hold(mutator, targets_of(mutator, macs=0.7, params=1.0), 10)
    for row, _ in found:
        assert max(row.values()) == row['params']
        assert row['params'] == pytest.approx(1.0, rel=1e-3)


def test_units_at_their_limits_stay_there(mutator):
    ratio = mutator.topk.pruning_ratio
    ratio.data[: len(mutator.units) - 1] = 0.0
    targets = targets_of(mutator, macs=1.0)
    widest = mutator.masks.kept().detach().clone()
    found = hold(mutator, targets, 10)
    assert torch.equal(found[-1][1][:-1], widest[:-1])
    assert found[-1][1][-1] > widest[-1]
    assert (ratio >= 0).all()


def test_nothing_left_to_widen(mutator):
    mutator.topk.pruning_ratio.data[: len(mutator.units)] = 0.0
    found = hold(mutator, targets_of(mutator, macs=1.0), 4)
    assert torch.isfinite(mutator.topk.pruning_ratio).all()
    assert found[-1][0]['macs'] < 0.95


def test_no_synchronization(mutator, monkeypatch):
    def refuse(self):
        raise AssertionError('synchronizes with the host')

    targets = targets_of(mutator, macs=1.0)
    mutator.masks.hold_depth()
    for name in ('__bool__', '__float__', 'item', 'tolist'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with widths_follow(mutator, targets):
        mutator.topk.harden_(0.5)
