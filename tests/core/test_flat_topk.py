import copy

import pytest
import torch

from dms_mmrazor.core import (
    FlatTopk,
    differentiable_topk,
    hard_topk,
    index_importance,
)

SIZES = [1, 2, 3, 16, 17, 64, 5, 33, 100, 1, 16]
DEVICES = ['meta'] + ['cuda'] * torch.cuda.is_available()


def random_topk(sizes=SIZES, seed=0, ratio=True, **kwargs) -> FlatTopk:
    """Operators in the middle of a search, with ties in the importances."""
    generator = torch.Generator().manual_seed(seed)
    topk = FlatTopk(sizes, **kwargs)
    importance = torch.randn(topk.importance.shape, generator=generator)
    importance = torch.where(importance > 1, torch.ones(()), importance)
    topk.importance.copy_(importance)
    topk.num_updates.fill_(1)
    if ratio:
        values = torch.rand(len(sizes), generator=generator)
        topk.pruning_ratio.data.copy_(1.4 * values - 0.2)
    return topk


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('seed', range(5))
def test_flat_equals_single(seed, dtype):
    temperatures = [None, 8.0] + [None] * (len(SIZES) - 2)
    topk = random_topk(seed=seed, temperatures=temperatures).to(dtype)
    flat = topk.soft_mask()
    weight = torch.randn(flat.shape, dtype=dtype)
    (flat * weight).sum().backward()
    masks = topk.split(flat)
    hard_masks = topk.split(topk.hard_mask())
    parts = zip(topk.split(topk.importance), topk.split(weight))
    for index, (importance, part) in enumerate(parts):
        ratio = topk.pruning_ratio.detach()[index].clone().requires_grad_()
        single = differentiable_topk(importance, ratio, temperatures[index])
        (single * part).sum().backward()
        torch.testing.assert_close(masks[index], single, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            topk.pruning_ratio.grad[index], ratio.grad, rtol=1e-4, atol=1e-4
        )
        assert torch.equal(hard_masks[index], single >= 0.5)
        assert torch.equal(hard_masks[index], hard_topk(importance, ratio))
        assert topk.hard_kept()[index] == (single >= 0.5).sum()


def test_masks_are_one_before_the_first_update():
    topk = FlatTopk([4, 9])
    topk.pruning_ratio.data.fill_(0.5)
    mask = topk.soft_mask()
    assert torch.equal(mask, torch.ones(13))
    mask.sum().backward()
    assert torch.equal(topk.pruning_ratio.grad, torch.zeros(2))
    topk.update_importance_(torch.ones(13), torch.rand(13))
    assert topk.soft_mask().min() < 0.5


@pytest.mark.parametrize('seed', range(3))
def test_steps_share_importance_and_mask(seed):
    sizes, steps = [64, 10, 7, 3], [16, 4, 1, 5]
    topk = random_topk(sizes, seed, steps=steps)
    counts = [-(-size // step) for size, step in zip(sizes, steps)]
    assert topk.importance.numel() == sum(counts)
    masks = topk.split(topk.soft_mask())
    importances = topk.importance.split(counts)
    for u, (size, step) in enumerate(zip(sizes, steps)):
        single = differentiable_topk(importances[u], topk.pruning_ratio[u])
        expected = single.repeat_interleave(step)[:size]
        torch.testing.assert_close(masks[u], expected, rtol=0, atol=1e-5)


def test_gradients_of_a_step_are_summed():
    topk = FlatTopk([5], steps=[2])
    mask = torch.tensor([0.5, 0.5, 1.0, 1.0, 0.25])
    grad = torch.tensor([1.0, 2.0, 3.0, -3.0, 4.0])
    topk.update_importance_(mask, grad, decay=0.0)
    torch.testing.assert_close(topk.importance, torch.tensor([2.25, 0.0, 1.0]))
    topk.set_importance_(index_importance(5))
    torch.testing.assert_close(topk.importance, torch.tensor([1.8, 1.0, 0.2]))


@pytest.mark.parametrize(
    'metric, score',
    [('taylor', 36.0), ('snip', 6.0), ('fisher', 144.0), ('gradient', 12.0)],
)
def test_moving_average_in_closed_form(metric, score):
    topk = FlatTopk([3])
    mask, grad = torch.full((3,), 0.5), torch.full((3,), -12.0)
    for _ in range(20):
        topk.update_importance_(mask, grad, metric, decay=0.9)
    expected = torch.full((3,), score * (1 - 0.9**20))
    torch.testing.assert_close(topk.importance, expected)
    assert topk.num_updates == 20


@pytest.mark.parametrize('metric', ['index', 'l1'])
def test_static_metrics_only_count(metric):
    topk = FlatTopk([3])
    topk.set_importance_(torch.tensor([1.0, 3.0, 2.0]))
    topk.update_importance_(torch.ones(3), torch.ones(3), metric)
    assert topk.importance.tolist() == [1.0, 3.0, 2.0]
    assert topk.num_updates == 1


@pytest.mark.parametrize('metric', ['taylor', 'fisher', 'index'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_grads_that_are_not_finite_change_nothing(metric, bad):
    topk = random_topk()
    before = copy.deepcopy(topk.state_dict())
    grad = torch.ones(sum(SIZES))
    grad[7] = bad
    topk.update_importance_(torch.ones(sum(SIZES)), grad, metric)
    after = topk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scores_that_overflow_change_nothing():
    topk = random_topk()
    before = topk.importance.clone()
    ones = torch.ones(sum(SIZES))
    topk.update_importance_(ones, 1e30 * ones)
    assert torch.equal(topk.importance, before)
    assert topk.num_updates == 1


def test_project_limits_the_ratios():
    topk = FlatTopk([8, 8, 8, 8], min_kept=[1, 3, 0, 8], max_kept=[8, 6, 8, 8])
    topk.pruning_ratio.data.fill_(2.0)
    topk.project_()
    assert topk.pruning_ratio.tolist() == [0.875, 0.625, 1.0, 0.0]
    assert topk.hard_kept().tolist() == [1, 3, 0, 8]
    topk.pruning_ratio.data.fill_(-1.0)
    topk.project_()
    assert topk.pruning_ratio.tolist() == [0.0, 0.25, 0.0, 0.0]
    assert topk.hard_kept().tolist() == [8, 6, 8, 8]


@pytest.mark.parametrize('seed', range(5))
def test_limits_hold_whichever_elements_are_kept(seed):
    low, high = [1, 4, 5, 9, 10, 3], [10, 8, 9, 10, 10, 8]
    sizes = [10] * 6
    topk = random_topk(
        sizes, seed, ratio=False, steps=[4] * 6, min_kept=low, max_kept=high
    )
    for ratio in (0.0, 1.0):
        topk.pruning_ratio.data.fill_(ratio)
        for number, least, most in zip(topk.hard_kept().tolist(), low, high):
            assert least <= number <= most


def test_gradient_flows_at_the_limits():
    topk = random_topk([5, 7], ratio=False)
    topk.pruning_ratio.data.fill_(1.0)
    topk.project_()
    topk.soft_mask().sum().backward()
    assert (topk.pruning_ratio.grad != 0).all()


def test_kept():
    topk = random_topk([10, 20], ratio=False)
    topk.pruning_ratio.data.copy_(torch.tensor([0.25, 0.5]))
    kept = topk.kept()
    assert kept.tolist() == [7.5, 10.0]
    (grad,) = torch.autograd.grad(kept.sum(), topk.pruning_ratio)
    assert grad.tolist() == [-10.0, -20.0]


def test_hold_and_release():
    topk = random_topk([10, 20, 30], ratio=False)
    topk.pruning_ratio.data.copy_(torch.tensor([0.32, 0.41, 0.5]))
    hard = topk.split(topk.hard_mask())
    importance = topk.split(topk.importance.clone())
    topk.hold_([0, 2])
    topk.pruning_ratio.data.add_(0.2)
    masks = topk.split(topk.soft_mask())
    assert torch.equal(masks[0], hard[0].float())
    assert torch.equal(masks[2], hard[2].float())
    assert topk.kept()[[0, 2]].tolist() == [7.0, 15.0]
    (sum(mask.sum() for mask in masks) + topk.kept().sum()).backward()
    assert (topk.pruning_ratio.grad != 0).tolist() == [False, True, False]
    topk.update_importance_(torch.ones(60), torch.rand(60))
    topk.set_importance_(topk.importance + torch.rand(60))
    same = [
        torch.equal(*pair)
        for pair in zip(topk.split(topk.importance), importance)
    ]
    assert same == [True, False, True]
    topk.project_()
    torch.testing.assert_close(
        topk.pruning_ratio.detach(), torch.tensor([0.32, 0.61, 0.5])
    )
    topk.release_()
    topk.soft_mask().sum().backward()
    assert (topk.pruning_ratio.grad != 0).all()


def test_hold_takes_tensors_and_adds():
    topk = random_topk([4, 5, 6])
    topk.hold_(torch.tensor([2]))
    topk.hold_([])
    topk.hold_([0])
    assert topk.held.tolist() == [True, False, True]


def test_held_masks_do_not_wait_for_an_update():
    topk = FlatTopk([4, 4])
    topk.set_kept_(0, 2)
    topk.hold_([0])
    assert topk.soft_mask().tolist() == [1.0, 1.0, 0.0, 0.0] + [1.0] * 4


@pytest.mark.parametrize('updated', [False, True])
def test_held_masks_become_hard_evenly(updated):
    topk = random_topk([10, 20, 6], ratio=False, temperatures=[40, None, 24])
    topk.pruning_ratio.data.copy_(torch.tensor([0.45, 0.41, 0.08]))
    topk.num_updates.fill_(updated)
    soft, kept = topk.soft_mask().detach(), topk.kept().detach()
    hard, hard_kept = topk.hard_mask(), topk.hard_kept()
    topk.hold_([0, 2])
    seen = []
    for portion in (0.25, 0.5, 0.75, 1.0):
        topk.harden_(portion)
        mask = topk.soft_mask()
        (grad,) = torch.autograd.grad(mask.sum(), topk.pruning_ratio)
        assert grad[[0, 2]].tolist() == [0, 0]
        seen.append((mask.detach(), topk.kept().detach()))
        expected = torch.lerp(soft, hard.float(), portion)
        for index in (0, 2):
            parts = topk.split(mask)[index], topk.split(expected)[index]
            torch.testing.assert_close(*parts)
            assert torch.equal(
                *(topk.split(part)[index] for part in (topk.hard_mask(), hard))
            )
        assert topk.kept()[1] == kept[1]
        # Nothing else changes them.
        topk.pruning_ratio.data[[0, 2]] += 0.1
        topk.set_importance_(torch.where(hard, 0.0, 1.0))
        topk.project_()
    assert torch.equal(topk.split(seen[-1][0])[0], topk.split(hard)[0].float())
    assert seen[-1][1][[0, 2]].tolist() == hard_kept[[0, 2]].tolist()


def test_half_hard_masks_survive_a_checkpoint():
    topk = random_topk()
    topk.hold_([1, 3, 4])
    topk.harden_(0.3)
    other = FlatTopk(SIZES)
    other.load_state_dict(topk.state_dict())
    for portion in (0.3, 0.6, 1.0):
        topk.harden_(portion), other.harden_(portion)
        assert torch.equal(other.soft_mask(), topk.soft_mask())
        assert torch.equal(other.kept(), topk.kept())
        assert torch.equal(other.hard_mask(), topk.hard_mask())
    topk.release_()
    topk.harden_(0.5)
    assert not topk.held.any()


@pytest.mark.parametrize('updated', [False, True])
def test_set_kept(updated):
    topk = random_topk() if updated else FlatTopk(SIZES)
    for operator, size in enumerate(SIZES):
        for kept in range(1, size + 1):
            topk.set_kept_(operator, kept)
            assert topk.hard_kept()[operator] == kept
    topk.hold_([5])
    topk.set_kept_(5, 17)
    topk.project_()
    assert topk.hard_kept()[5] == topk.kept()[5] == 17


def test_set_kept_with_steps():
    topk = random_topk([64, 10], ratio=False, steps=[16, 4])
    topk.set_importance_(index_importance(64 + 10))
    for kept in (16, 32, 48, 64):
        topk.set_kept_(0, kept)
        assert topk.hard_kept()[0] == kept
    topk.set_kept_(1, 8)
    assert topk.hard_kept()[1] == 8
    with pytest.raises(ValueError, match='choose e.g. 4 or 8'):
        topk.set_kept_(1, 6)


def test_set_kept_errors():
    topk = FlatTopk([8], min_kept=[2], max_kept=[6])
    for operator, kept in ((0, 1), (0, 7), (0, -1), (1, 4), (-1, 4)):
        with pytest.raises(ValueError, match='operator'):
            topk.set_kept_(operator, kept)


def test_state_dict_round_trip():
    topk = random_topk()
    topk.hold_([1, 4])
    names = {
        'pruning_ratio',
        'importance',
        'num_updates',
        'held',
        'held_ratio',
        'held_kept',
    }
    assert set(topk.state_dict()) == names
    other = FlatTopk(SIZES)
    other.load_state_dict(topk.state_dict())
    assert torch.equal(other.soft_mask(), topk.soft_mask())
    assert torch.equal(other.kept(), topk.kept())


def test_deepcopy_is_independent():
    topk = random_topk()
    other = copy.deepcopy(topk)
    before = topk.soft_mask()
    assert torch.equal(other.soft_mask(), before)
    other.pruning_ratio.data.fill_(0.5)
    other.importance.neg_()
    assert torch.equal(topk.soft_mask(), before)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('steps', [None, [3] * len(SIZES)])
def test_no_synchronization(device, steps):
    # Tensors on the meta device have no values: reading one raises.
    topk = random_topk(steps=steps).to(device)
    grad = torch.ones(sum(SIZES), device=device)
    if device == 'cuda':
        torch.cuda.set_sync_debug_mode('error')
    try:
        mask = topk.soft_mask()
        (mask.sum() + topk.kept().sum()).backward()
        topk.update_importance_(mask, grad)
        topk.project_()
        topk.harden_(0.5)
        topk.hard_kept()
        assert topk.hard_mask().shape == mask.shape
    finally:
        if device == 'cuda':
            torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(sizes=[]), 'empty'),
        (dict(sizes=[4, 0]), 'operator 1: size'),
        (dict(sizes=[4], steps=[0]), 'operator 0: size and step'),
        (dict(sizes=[4], temperatures=[0.0]), 'temperature'),
        (dict(sizes=[4], steps=[1, 1]), 'steps must have one entry'),
        (dict(sizes=[4], min_kept=[5]), 'min_kept=5'),
        (dict(sizes=[4], max_kept=[5]), 'max_kept=5'),
        (dict(sizes=[4], min_kept=[3], max_kept=[2]), 'min_kept=3'),
        (dict(sizes=[8], steps=[4], min_kept=[5], max_kept=[7]), 'multiple'),
        # The element that is kept may be the last one, with 2 channels only.
        (dict(sizes=[10], steps=[4], min_kept=[3], max_kept=[7]), 'multiple'),
    ],
)
def test_errors_of_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FlatTopk(**kwargs)


def test_errors_of_calls():
    topk = FlatTopk([4])
    ones = torch.ones(4)
    with pytest.raises(ValueError, match='metric'):
        topk.update_importance_(ones, ones, metric='magnitude')
    with pytest.raises(ValueError, match='decay'):
        topk.update_importance_(ones, ones, decay=1.0)
    for wrong in ((ones[:3], ones), (ones, ones[:3])):
        with pytest.raises(ValueError, match='4 channels'):
            topk.update_importance_(*wrong)
    for wrong in ([1], [-1], torch.tensor([True])):
        with pytest.raises(ValueError, match='operators'):
            topk.hold_(wrong)
    with pytest.raises(ValueError, match='not finite'):
        topk.set_importance_(ones / 0)
    before = topk.importance.clone()
    topk.set_importance_(ones / 0, check=False)  # without a look at values
    assert torch.equal(topk.importance, before)
