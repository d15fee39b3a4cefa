import copy

import pytest
import torch

from dms_mmrazor.baselines.masks import (
    MASKS,
    GETMasks,
    MESMasks,
    MinMaxMasks,
    SNSMasks,
)
from dms_mmrazor.core import FlatTopk

LEARNED = [MESMasks, SNSMasks, GETMasks]


def ready(masks):
    """After a first update, with distinct importances."""
    generator = torch.Generator().manual_seed(0)
    size = masks.importance.shape
    masks.importance.copy_(torch.rand(size, generator=generator))
    masks.num_updates.fill_(1)
    return masks


def test_mes_samples_gates_straight_through():
    masks = ready(MESMasks([3, 2]))
    alpha = torch.tensor([1.0, -1.0, 0.5, -2.0, -3.0])
    noise = torch.tensor([0.0, 2.0, -1.0, 0.0, 0.0])
    masks.learned.data.copy_(alpha)
    masks.noise.copy_(noise)
    mask = masks.soft_mask()
    assert mask.tolist() == [1, 1, 0, 0, 0]
    weight = torch.arange(5.0)
    (grad,) = torch.autograd.grad((mask * weight).sum(), masks.learnable())
    slope = torch.sigmoid(alpha + noise)
    torch.testing.assert_close(grad, weight * slope * (1 - slope))
    expected = torch.sigmoid(alpha).split([3, 2])
    sums = torch.stack([part.sum() for part in expected])
    torch.testing.assert_close(masks.kept(), sums)
    # At least one of the second operator, although none is above 0.
    assert masks.hard_mask().tolist() == [True, False, True, True, False]


def test_sns_mixes_first_k_masks():
    masks = ready(SNSMasks([3, 2], min_kept=[0, 1]))
    assert masks.option.tolist() == [0, 1, 2, 3, 1, 2]
    masks.noise.zero_()
    masks.set_progress_(0.0)
    assert masks.tau == 5
    logits = torch.tensor([0.0, 1.0, 3.0, 2.0, 0.0, 1.0])
    masks.learned.data.copy_(logits)
    first = torch.softmax(logits[:4] / 5, 0)
    second = torch.softmax(logits[4:] / 5, 0)
    by_hand = [first[1:].sum(), first[2:].sum(), first[3], 1.0, second[1]]
    mask = masks.soft_mask()
    torch.testing.assert_close(mask, torch.tensor(by_hand))
    count = torch.stack(
        [
            (first * torch.arange(4)).sum(),
            (second * torch.arange(1, 3)).sum(),
        ]
    )
    torch.testing.assert_close(masks.kept(), count)
    assert masks.hard_kept().tolist() == [2, 2]
    masks.set_progress_(1.0)
    assert masks.tau == pytest.approx(0.09)
    assert masks.soft_mask()[1] > 0.999


def test_get_is_hard_and_its_gradient_leaves_out_the_sigmoid():
    masks = ready(GETMasks([4, 2]))
    masks.importance.copy_(torch.tensor([0.1, 0.4, 0.2, 0.3, 1.0, 2.0]))
    assert masks.hard_kept().tolist() == [4, 2]
    masks.learned.data.copy_(torch.tensor([0.1, 0.0]))
    mask = masks.soft_mask()
    assert mask.tolist() == [0, 1, 1, 1, 0, 1]
    weight = torch.tensor([5.0, 1.0, 2.0, 3.0, 7.0, 4.0])
    (grad,) = torch.autograd.grad((mask * weight).sum(), masks.learnable())
    assert grad.tolist() == [6, 4]
    kept = masks.kept()
    portion = 4 * torch.sigmoid(torch.tensor(0.1))
    torch.testing.assert_close(kept[0], portion)
    (grad,) = torch.autograd.grad(kept[0], masks.learnable())
    assert grad.tolist() == [3, 0]
    # The limit of one element: σ(t) N is not below it.
    masks.project_()
    torch.testing.assert_close(masks.kept()[1], torch.tensor(1.0))


def test_minmax_scales_importances_and_exports_by_rank():
    masks = ready(MinMaxMasks([4, 3]))
    masks.importance.copy_(torch.tensor([1.0, 2.0, 3.0, 101.0, 0.0, 1.0, 2.0]))
    masks.pruning_ratio.data.copy_(torch.tensor([0.5, 0.0]))
    scaled = torch.tensor([0.0, 0.01, 0.02, 1.0])
    by_hand = torch.sigmoid(4 * (scaled - 0.5))
    torch.testing.assert_close(masks.soft_mask()[:4], by_hand)
    assert masks.hard_mask()[:4].tolist() == [False, False, True, True]
    assert masks.kept().tolist() == [2, 3]


@pytest.mark.parametrize('kind', list(MASKS))
def test_all_kept_at_the_start(kind):
    masks = MASKS[kind]([8, 3, 1])
    assert masks.hard_mask().all()
    kept = masks.kept() / torch.tensor([8, 3, 1])
    assert (kept > 0.5).all() and (kept <= 1 + 1e-6).all()


@pytest.mark.parametrize('kind', list(MASKS))
def test_chosen_numbers_are_kept_exactly(kind):
    masks = ready(MASKS[kind]([9, 4, 5], steps=[2, 1, 1], min_kept=[2, 0, 1]))
    last = bool(masks._order()[4] == 4) if kind == 'get' else False
    for operator, kept in ((0, 3 if last else 4), (1, 2), (2, 5)):
        masks.set_kept_(operator, kept)
        assert masks.hard_kept()[operator] == kept
        masks.project_()
        assert masks.hard_kept()[operator] == kept
    masks.set_kept_(1, 0)
    assert masks.hard_kept()[1] == 0
    with pytest.raises(ValueError, match='exactly 7'):
        masks.set_kept_(1, 7)


@pytest.mark.parametrize('kind', list(MASKS))
def test_held_operators_are_hard_and_constant(kind):
    masks = ready(MASKS[kind]([6, 4]))
    masks.set_kept_(1, 2)
    masks.hold_([1])
    before = copy.deepcopy(masks.state_dict())
    (learned,) = masks.learnable()
    loss = masks.soft_mask().square().sum() + masks.kept().sum()
    (grad,) = torch.autograd.grad(loss, [learned])
    learned.data.sub_(0.1)
    masks.project_()
    assert masks.hard_kept()[1] == 2 and masks.kept()[1] == 2
    mask = masks.split(masks.soft_mask())[1]
    assert sorted(mask.tolist()) == [0, 0, 1, 1]
    owner = getattr(masks, 'learned_owner', torch.arange(2))
    assert (grad[owner == 1] == 0).all() and (grad[owner == 0] != 0).any()
    name = 'pruning_ratio' if kind == 'minmax' else 'learned'
    assert torch.equal(learned[owner == 1], before[name][owner == 1])
    masks.harden_(0.5)
    assert 0 <= float(masks.soft_mask().detach().min())
    masks.release_()
    assert not masks.held.any()


@pytest.mark.parametrize('kind', list(MASKS))
def test_limits(kind):
    masks = ready(MASKS[kind]([8, 8], min_kept=[3, 1], max_kept=[8, 5]))
    (learned,) = masks.learnable()
    sign = -1 if kind == 'minmax' else 1
    for value in (-50.0, 50.0):
        learned.data.fill_(sign * value)
        masks.project_()
        kept = masks.hard_kept().tolist()
        if kind != 'sns':  # equal logits of all counts say nothing
            assert kept == ([3, 1] if value < 0 else [8, 5])
        assert 3 <= kept[0] <= 8 and 1 <= kept[1] <= 5


@pytest.mark.parametrize('cls', LEARNED)
def test_limits_of_what_is_learned(cls):
    masks = ready(cls([4, 3], min_kept=[2, 1]))
    masks.hold_([1])
    lower, upper = masks.limits()
    mine = masks.learned_owner == 1
    assert torch.equal(lower[mine], masks.learned[mine])
    assert torch.equal(upper[mine], masks.learned[mine])
    assert (lower <= masks.learned).all() and (masks.learned <= upper).all()
    if cls is GETMasks:
        assert lower.tolist()[0] == 0  # σ(0) · 4 = 2


@pytest.mark.parametrize('cls', LEARNED)
def test_a_step_has_one_sample_and_the_next_another(cls):
    masks = ready(cls([16, 16]))
    masks.learned.data.zero_()
    first = masks.soft_mask()
    assert torch.equal(first, masks.soft_mask())
    masks.update_importance_(first.detach(), torch.zeros(32))
    changed = not torch.equal(first, masks.soft_mask())
    assert changed == (cls is not GETMasks)
    twin = ready(cls([16, 16]))
    twin.load_state_dict(masks.state_dict())
    assert torch.equal(twin.soft_mask(), masks.soft_mask())


@pytest.mark.parametrize('kind', list(MASKS))
def test_the_resource_loss_narrows(kind):
    """Plain steps on the kept portion alone lead to fewer channels."""
    masks = ready(MASKS[kind]([16, 32]))
    learnable = masks.learnable()
    for _ in range(400):
        loss = torch.log(masks.kept().sum())
        grads = torch.autograd.grad(loss, learnable)
        for parameter, grad in zip(learnable, grads):
            parameter.data.sub_(grad if kind == 'minmax' else 4 * grad)
        masks.project_()
        masks.update_importance_(torch.ones(48), torch.ones(48), metric='l1')
        if masks.kept().sum() < 24:
            break
    assert masks.kept().sum() < 24
    assert masks.hard_kept().sum() <= 32
    assert isinstance(masks, FlatTopk)
