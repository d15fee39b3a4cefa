import math

import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ResidualBlock, ResidualStage
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.supernet.mask_state import MaskState


@pytest.fixture
def parts():
    """Units of 6 and 4 channels and a stage of 3 blocks."""
    blocks = tuple(
        ResidualBlock(f's.{index}', f's.{index}.norm', True)
        for index in range(3)
    )
    stage = ResidualStage('s', blocks, 1)
    units = [DMSChannelUnit(6), DMSChannelUnit(4)]
    return units, [DMSDepthUnit(stage)]


@pytest.fixture
def state(parts):
    state = MaskState(*parts)
    state.topk.importance.copy_(torch.arange(13.0))
    state.topk.num_updates.fill_(1)
    return state


def finish(state, grad_scale=None, scores=None):
    """What a structure step does for importances; the gradient."""
    grad = state.take_gradient(grad_scale)
    state.update_importance(grad, scores)
    return grad


def backward(state, weight=1.0):
    state.use_soft_masks()
    mask = torch.cat(state.table.masks)
    (mask * torch.arange(1.0, 14.0) * weight).sum().backward()


def test_temperatures(state):
    temperatures = [op.temperature for op in state.topk.operators]
    assert temperatures == [6, 4, 12]


def test_masks_are_computed_once_and_read_by_all_units(parts, state):
    (first, second), (stage,) = parts
    assert first.mutable_channel.mask is None
    state.use_soft_masks()
    masks = state.table.masks
    assert first.mutable_channel.mask is masks[0]
    assert second.mutable_channel.mask is masks[1]
    assert stage.mutable_depth.mask is masks[2]
    assert masks[0].requires_grad
    state.use_hard_masks()
    assert first.mutable_channel.mask.tolist() == [1] * 6
    state.use_no_masks()
    assert stage.mutable_depth.mask is None


def test_other_masks_are_shown_for_a_while(parts, state):
    unit = parts[0][1]
    state.use_hard_masks()
    with state.showing(torch.arange(13) % 2 == 0):
        assert unit.mutable_channel.mask.tolist() == [1, 0, 1, 0]
    assert unit.mutable_channel.mask.tolist() == [1, 1, 1, 1]


def test_importance_follows_equation_4(state):
    before = state.topk.importance.clone()
    mask = state.topk.soft_mask().detach()
    backward(state)
    grad = torch.arange(1.0, 14.0)
    assert torch.equal(state.mask_grad, grad)
    finish(state)
    expected = 0.99 * before + 0.01 * (mask * grad).square()
    torch.testing.assert_close(state.topk.importance, expected)
    assert state.topk.num_updates == 2
    assert not state.mask_grad.any()


def test_gradients_are_summed_until_the_step_and_unscaled(state):
    scaled = MaskState(*[[DMSChannelUnit(6), DMSChannelUnit(4)], []])
    scaled.topk.num_updates.fill_(1)
    for _ in range(3):
        backward_of = torch.cat
        scaled.use_soft_masks()
        backward_of(scaled.table.masks).sum().mul(8.0).backward()
    assert torch.equal(scaled.mask_grad, torch.full((10,), 24.0))
    mask = scaled.mask.clone()
    finish(scaled, torch.tensor(8.0))
    expected = 0.01 * (3 * mask).square()
    torch.testing.assert_close(scaled.topk.importance, expected)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_gradients_that_are_not_finite_change_nothing(state, value):
    before = {k: v.clone() for k, v in state.topk.state_dict().items()}
    backward(state, torch.tensor([1.0] * 5 + [value] + [1.0] * 7))
    finish(state)
    for name, tensor in state.topk.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not state.mask_grad.any()
    backward(state)
    finish(state)
    assert state.topk.num_updates == before['num_updates'] + 1
    assert torch.isfinite(state.topk.importance).all()


def test_pruning_ratios_return_into_their_limits(state):
    state.topk.pruning_ratio.data.copy_(torch.tensor([-0.5, 2.0, 0.5]))
    state.topk.project_()
    assert state.topk.pruning_ratio.tolist() == [0.0, 0.75, 0.5]


def test_the_gradient_goes_on_to_the_pruning_ratios(state):
    """As if the network had been one graph with the top-k."""
    state.topk.pruning_ratio.data.fill_(0.4)
    ratio, weight = state.topk.pruning_ratio, torch.arange(1.0, 14.0)
    loss = (state.topk.soft_mask() * weight).sum()
    (expected,) = torch.autograd.grad(loss, ratio)
    backward(state)
    assert ratio.grad is None
    found = state.ratio_gradient(state.take_gradient(None))
    torch.testing.assert_close(found, expected)
    state.update_importance(weight)
    with pytest.raises(DMSError, match='forward'):
        state.ratio_gradient(weight)


def test_a_held_depth_does_not_change(state):
    state.topk.pruning_ratio.data.fill_(0.4)
    state.hold_depth()
    kept = state.topk.hard_kept().tolist()
    assert set(state.soft_blocks().tolist()) == {0.0, 1.0}
    state.topk.pruning_ratio.data.fill_(0.0)
    state.topk.importance[10:] = torch.tensor([9.0, 5.0, 1.0])
    state.topk.project_()
    assert state.topk.hard_kept().tolist()[:2] == [6, 4]
    assert state.topk.hard_kept().tolist()[2] == kept[2]


def test_holding_without_stages():
    state = MaskState([DMSChannelUnit(4)], [])
    state.hold_depth()
    assert not state.topk.held.any()
    assert state.hard_blocks().shape == (0,)


@pytest.mark.parametrize('metric', ['snip', 'fisher'])
def test_other_metrics(parts, metric):
    state = MaskState(*parts, metric=metric, decay=0.0)
    state.topk.pruning_ratio.data.fill_(0.3)
    state.topk.num_updates.fill_(1)
    mask = state.topk.soft_mask().detach()
    backward(state)
    grad = torch.arange(1.0, 14.0)
    finish(state)
    score = (mask * grad).abs() if metric == 'snip' else grad.square()
    torch.testing.assert_close(state.topk.importance, score)


def test_static_scores_are_set_and_counted(parts):
    state = MaskState(*parts, metric='index')
    backward(state)
    finish(state, scores=torch.arange(13.0))
    assert torch.equal(state.topk.importance, torch.arange(13.0))
    assert state.topk.num_updates == 1


@pytest.mark.parametrize(
    'kwargs', [dict(metric='l2'), dict(decay=1), dict(decay=-1)]
)
def test_bad_settings(parts, kwargs):
    with pytest.raises(DMSError, match='importance'):
        MaskState(*parts, **kwargs)
