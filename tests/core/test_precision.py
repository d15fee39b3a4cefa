import pytest
import torch

from dms_mmrazor.core import Dim, FlatTopk, ResourceModel, Term


def operators():
    topk = FlatTopk([4096])
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(4096, generator=generator)
    topk.set_importance_(order.float())
    topk.pruning_ratio.data.fill_(0.3001)
    return topk


@pytest.mark.parametrize(
    'convert',
    [
        lambda module: module.half(),
        lambda module: module.bfloat16(),
        lambda module: module.to(torch.float16),
        lambda module: torch.nn.Sequential(module).half()[0],
    ],
)
def test_half_precision_changes_nothing(convert):
    before, topk = operators(), convert(operators())
    assert torch.equal(topk.hard_mask(), before.hard_mask())
    for name, value in before.state_dict().items():
        assert torch.equal(topk.state_dict()[name], value), name
        assert topk.state_dict()[name].dtype is value.dtype


def test_higher_precision_and_other_devices():
    topk = operators().double()
    assert topk.pruning_ratio.dtype is torch.float64
    assert topk.to('meta').importance.device.type == 'meta'


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_resources_stay_in_double_precision(dtype):
    terms = [Term('layer', 2.0**30 + 1, (Dim(0.0, ((0, 1.0),)),))]
    model = ResourceModel(terms, 1, 0)
    kept, blocks = torch.tensor([3.0]), torch.ones(0)
    expected = model(kept, blocks)
    assert model.to(dtype)(kept, blocks) == expected
