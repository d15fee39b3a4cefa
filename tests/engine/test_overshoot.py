import math
import re

import pytest
import torch

from dms_mmrazor.engine.overshoot import (
    MUCH,
    largest_step,
    overshoot_warnings,
    unit_steps,
)


@pytest.fixture
def mutator(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    mutator.topk.pruning_ratio.data.fill_(0.6)
    mutator.masks.hold_depth()
    return mutator


@pytest.mark.parametrize('kind', ['macs', 'params'])
def test_the_step_is_the_one_of_sgd(mutator, kind):
    lr = 1e-5
    before = mutator.resource(kind, hard=False)
    step = largest_step(mutator, kind, lr)
    ratio = mutator.topk.pruning_ratio
    optimizer = torch.optim.SGD([ratio], lr)
    torch.log(mutator.table.soft(kind)).backward()
    optimizer.step()
    after = mutator.resource(kind, hard=False)
    assert step == pytest.approx(math.log(before / after), rel=1e-2)


def test_the_step_grows_as_the_network_shrinks(mutator):
    before = largest_step(mutator, 'macs', 1e-2)
    mutator.topk.pruning_ratio.data.fill_(0.8)
    assert largest_step(mutator, 'macs', 1e-2) > 2 * before


def test_a_unit_at_its_limit_makes_no_step(mutator):
    upper = mutator.topk.layout.upper
    mutator.topk.pruning_ratio.data[0] = upper[0]
    steps = unit_steps(mutator, 'macs', 1.0)
    assert steps[0] == 0 and (steps[1:16] > 0).any()
    assert float(steps.sum()) == largest_step(mutator, 'macs', 1.0)


def present(mutator):
    return {
        kind: mutator.resource(kind, hard=False) for kind in ('macs', 'params')
    }


def test_warnings(mutator):
    lr = 1e-3 * MUCH / largest_step(mutator, 'macs', 1e-3)
    now = present(mutator)
    assert not overshoot_warnings(mutator, dict(macs=0.9), lr, now)
    line = overshoot_warnings(mutator, dict(macs=3.0), lr, now)['macs']
    for word in ('the macs by 6.0% now (widths 6.0%)', 'structure.lr'):
        assert word in line
    assert '`ResourceHook.loss_weight` by a factor of 3.' in line
    assert 'soft_landing=True' in line and '\n' not in line


def test_the_factor_is_enough(mutator):
    lr = 1e-3 * 3.33 * MUCH / largest_step(mutator, 'macs', 1e-3)
    now = present(mutator)
    line = overshoot_warnings(mutator, dict(macs=1.0), lr, now)['macs']
    factor = float(re.search(r'factor of ([\d.]+),', line).group(1))
    assert factor == 3.4
    assert not overshoot_warnings(mutator, dict(macs=1.0), lr / factor, now)


def test_no_warning_of_steps_that_are_not_made(mutator):
    """Another target holds a search below this one, where L_r is 0."""
    lr = 1e-3 * 2 * MUCH / largest_step(mutator, 'macs', 1e-3)
    above = {kind: 1.05 * value for kind, value in present(mutator).items()}
    assert overshoot_warnings(mutator, dict(macs=1.0), lr, above)
    above['macs'] *= 1.05
    assert not overshoot_warnings(mutator, dict(macs=1.0), lr, above)


def test_the_depth_is_named_until_it_is_held(zoo):
    """A block that is half kept makes the largest step of its stage."""
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    mutator.topk.num_updates.fill_(1)
    number, stage = len(mutator.units), mutator.depth_units[2]
    assert stage.num_blocks == 5
    ratio = mutator.topk.pruning_ratio.data
    ratio[number + 2] = 0.5 / 5
    steps = unit_steps(mutator, 'macs', 1.0)[number:]
    assert steps.argmax() == 2 and (steps > 0).all()
    lr = float(2 * MUCH / steps[2])
    now = present(mutator)
    line = overshoot_warnings(mutator, dict(macs=1.0), lr, now)['macs']
    assert f'depth of {stage.name} 4.0%' in line
    mutator.masks.hold_depth()
    assert not unit_steps(mutator, 'macs', 1.0)[number:].any()
    held = overshoot_warnings(mutator, dict(macs=1.0), lr, now)
    assert 'depth' not in held.get('macs', '')
