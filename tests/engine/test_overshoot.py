import math

import pytest
import torch

from dms_mmrazor.engine.overshoot import (
    MUCH,
    largest_step,
    overshoot_warnings,
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


def test_warnings(mutator):
    lr = 1e-3 * MUCH / largest_step(mutator, 'macs', 1e-3)
    assert not list(overshoot_warnings(mutator, dict(macs=0.9), lr))
    (line,) = overshoot_warnings(mutator, dict(macs=3.0), lr)
    for word in ('the macs by 6.0%', 'structure.lr', 'loss_weight'):
        assert word in line
    assert 'soft_landing=True' in line and '\n' not in line
