"""Pruning ratios move by lr · gradient with every optimizer."""

import inspect

import pytest
import torch
from mmengine.optim import LinearParamScheduler, build_optim_wrapper
from torch import nn

from dms_mmrazor.engine.structure_group import mark_structure_group
from dms_mmrazor.engine.structure_steps import use_plain_steps

MODERN = int(torch.__version__.split('.')[0]) >= 2
LR = 0.25
GRAD = torch.tensor([3.0, -1e-6, 0.0])

OPTIMIZERS = [
    dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    dict(type='AdamW', lr=1e-3, weight_decay=0.1),
    dict(type='AdamW', lr=1e-3, weight_decay=0.1, amsgrad=True),
    dict(type='RMSprop', lr=1e-3, momentum=0.9, weight_decay=0.1),
    dict(type='Adagrad', lr=1e-3, weight_decay=0.1),
    dict(type='mmpretrain.Lamb', lr=1e-3, weight_decay=0.1),
    dict(type='mmpretrain.LARS', lr=0.1, momentum=0.9, weight_decay=0.1),
]


def name_of(cfg):
    return cfg['type']


def make(kind=torch.optim.AdamW, **options):
    """An optimizer with plain steps; its weight and its ratios."""
    weight = nn.Parameter(torch.ones(4, 4))
    ratios = nn.Parameter(torch.full((3,), 0.5))
    optimizer = kind([weight], lr=0.1, **options)
    optimizer.add_param_group(dict(params=[ratios], lr=LR))
    mark_structure_group(optimizer.param_groups[1], LR)
    use_plain_steps(optimizer)
    return optimizer, weight, ratios


def set_gradients(weight, ratios, scale=1.0):
    weight.grad = torch.full_like(weight, scale)
    ratios.grad = GRAD * scale


@pytest.mark.parametrize('cfg', OPTIMIZERS, ids=name_of)
@pytest.mark.parametrize('structure_only', [False, True])
def test_steps_of_the_constructors_optimizers(cfg, structure_only, zoo):
    search = zoo.algorithm(zoo.cifar_resnet(18), structure_only=structure_only)
    constructor = 'mmrazor.DMSOptimWrapperConstructor'
    paramwise = dict(structure=dict(lr=LR))
    wrapper = build_optim_wrapper(
        search,
        dict(constructor=constructor, optimizer=cfg, paramwise_cfg=paramwise),
    )
    (ratios,) = search.structural_parameters()
    weight = search.architecture.head.fc.weight
    ratios.data.fill_(0.5)
    grad = torch.linspace(-1, 1, len(ratios))
    for _ in range(3):
        before, old_weight = ratios.detach().clone(), weight.detach().clone()
        loss = (ratios * grad).sum()
        wrapper.update_params(loss if structure_only else loss + weight.sum())
        assert torch.equal(ratios.detach(), before - LR * grad)
        assert torch.equal(weight, old_weight) == structure_only
    state = wrapper.optimizer.state.get(ratios, {})
    assert not any(value.any() for value in state.values())
    assert (weight in wrapper.optimizer.state) != structure_only


@pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.AdamW])
def test_weights_move_as_without_ratios(kind):
    optimizer, weight, ratios = make(kind)
    alone = nn.Parameter(torch.ones(4, 4))
    other = kind([alone], lr=0.1)
    for _ in range(3):
        set_gradients(weight, ratios)
        alone.grad = weight.grad.clone()
        optimizer.step()
        other.step()
        assert torch.equal(weight, alone)


def test_gradients_are_given_back():
    optimizer, weight, ratios = make()
    set_gradients(weight, ratios)
    grad = ratios.grad
    optimizer.step()
    assert ratios.grad is grad and torch.equal(grad, GRAD)


def test_gradients_are_given_back_after_an_error():
    optimizer, weight, ratios = make()
    set_gradients(weight, ratios)
    grad = ratios.grad
    optimizer.param_groups[0]['betas'] = 'no numbers'
    with pytest.raises(ValueError):
        optimizer.step()
    assert ratios.grad is grad


def test_without_a_gradient_nothing_moves():
    optimizer, weight, ratios = make()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert (ratios == 0.5).all() and ratios.grad is None


def test_closure():
    optimizer, weight, ratios = make()

    def closure():
        optimizer.zero_grad()
        loss = weight.sum() + (ratios * GRAD).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(17.5)
    torch.testing.assert_close(ratios.detach(), 0.5 - LR * GRAD)


def test_the_step_stays_a_method_with_its_signature():
    optimizer, *_ = make()
    plain = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    assert inspect.signature(optimizer.step) == inspect.signature(plain.step)
    assert optimizer.step.__self__ is optimizer


@pytest.mark.parametrize('make_scheduler', ['mmengine', 'torch'])
def test_schedulers_count_the_steps(make_scheduler, recwarn):
    optimizer, weight, ratios = make()
    if make_scheduler == 'torch':
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    else:
        scheduler = LinearParamScheduler(optimizer, 'lr', 0.5, end=2)
        optimizer.param_groups[1]['lr'] = LR
    set_gradients(weight, ratios)
    optimizer.step()
    scheduler.step()
    torch.testing.assert_close(ratios.detach(), 0.5 - LR * GRAD)
    assert not [w for w in recwarn if 'scheduler' in str(w.message)]


def test_loaded_state_keeps_plain_steps():
    optimizer, weight, ratios = make()
    set_gradients(weight, ratios)
    optimizer.step()
    other, weight, ratios = make()
    other.load_state_dict(optimizer.state_dict())
    set_gradients(weight, ratios)
    other.step()
    torch.testing.assert_close(ratios.detach(), 0.5 - LR * GRAD)


@pytest.mark.skipif(not MODERN, reason='no scaler for the CPU')
@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('unscale_before', [False, True])
def test_loss_scaler(fused, unscale_before):
    """A fused optimizer would get gradients that are still scaled."""
    optimizer, weight, ratios = make(fused=fused)
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    scaler.scale(torch.ones(1))
    for overflow in (False, True):
        before = ratios.detach().clone()
        set_gradients(weight, ratios, 1024.0)
        if overflow:
            weight.grad[0] = float('inf')
        if unscale_before:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        expected = before if overflow else 0.5 - LR * GRAD
        torch.testing.assert_close(ratios.detach(), expected)
    assert scaler.get_scale() == 512
