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


def _wrapper():
    weight, ratio = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.add_param_group(dict(params=[ratio], lr=0.01))
    return OptimWrapper(optimizer)


def test_schedules_are_undone():
    wrapper = _wrapper()
    weights, structure = wrapper.optimizer.param_groups
    mark_structure_group(structure, 0.01)
    for group in (weights, structure):
        group['lr'] = 7.0
    restore_structure_group(wrapper)
    assert structure['lr'] == 0.01
    assert weights['lr'] == 7.0


def test_state_dict_keeps_the_learning_rate():
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
