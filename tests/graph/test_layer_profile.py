import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from torch import nn

from dms_mmrazor.graph import count_macs, profile_layers


def test_positions_of_each_layer():
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        shared,
        shared,
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(128, 5),
    )
    profiles = {
        p.name: p.positions for p in profile_layers(model, (2, 3, 8, 8))
    }
    assert profiles == {'0': 16, '1': 32, '3': 16, '5': 1}
    kernels = 16 * 4 * 27 + 32 * 16 + 16 * 4 * 2 * 4 + 128 * 5
    assert count_macs(model, (2, 3, 8, 8)) == kernels


def test_layers_that_do_not_run_cost_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.unused = nn.Conv2d(3, 4, 1)
    model.forward = lambda image: model[0](image)
    assert [p.name for p in profile_layers(model, (1, 3, 2, 2))] == ['0']


def test_state_is_not_changed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].eval()
    profile_layers(model, (1, 3, 4, 4))
    assert model.training and not model[1].training
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_equals_the_counter_of_mmengine(groups):
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=groups, stride=2), nn.Conv2d(8, 8, 1)
    )
    info = get_model_complexity_info(model, input_shape=(4, 15, 15))
    assert count_macs(model, (1, 4, 15, 15)) == info['flops']
