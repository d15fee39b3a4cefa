import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from dms_mmrazor.engine.structure_group import (
    check_structure_group,
    mark_structure_group,
    restore_structure_group,
)
from dms_mmrazor.errors import DMSError


def _wrapper(kind=torch.optim.SGD, **options):
    weight, ratio = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = kind([weight], lr=0.1, **options)
    optimizer.add_param_group(dict(params=[ratio], lr=0.01))
    return OptimWrapper(optimizer)


@pytest.mark.parametrize(
    'kind, options, scheduled',
    [
        (torch.optim.SGD, dict(momentum=0.0), dict(momentum=0.8)),
        (torch.optim.AdamW, {}, dict(betas=(0.5, 0.5))),
    ],
    ids=['SGD', 'AdamW'],
)
def test_schedules_are_undone(kind, options, scheduled):
    wrapper = _wrapper(kind, **options)
    weights, structure = wrapper.optimizer.param_groups
    before = {k: v for k, v in structure.items() if k != 'params'}
    mark_structure_group(structure, 0.01)
    for group in (weights, structure):
        group.update(scheduled, lr=7.0)
    restore_structure_group(wrapper)
    assert before.items() <= structure.items()
    assert scheduled.items() <= weights.items() and weights['lr'] == 7.0


def test_state_dict_keeps_the_options():
    wrapper = _wrapper()
    mark_structure_group(wrapper.optimizer.param_groups[1], 0.01)
    other = _wrapper()
    other.load_state_dict(wrapper.state_dict())
    other.optimizer.param_groups[1]['lr'] = 7.0
    restore_structure_group(other)
    assert other.optimizer.param_groups[1]['lr'] == 0.01


def test_learning_rate_of_the_config_wins():
    wrapper = _wrapper()
    mark_structure_group(wrapper.optimizer.param_groups[1], 0.01)
    check_structure_group(wrapper, 0.02)
    restore_structure_group(wrapper)
    assert wrapper.optimizer.param_groups[1]['lr'] == 0.02


def test_optimizer_of_another_constructor():
    with pytest.raises(DMSError, match='optim_wrapper.constructor'):
        check_structure_group(_wrapper())
