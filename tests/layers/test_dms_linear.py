"""A linear layer that scales and shifts what a masked layer norm gives."""

import pytest
import torch
from torch import nn

from dms_mmrazor.layers import DMSLayerNorm, DMSLinear
from dms_mmrazor.layers.linear import move_affines
from dms_mmrazor.models.mutables import DMSChannelContainer


class Given(DMSChannelContainer):
    mask = None


class Rows:
    def __init__(self, mask):
        self.mask = mask


def container(mask):
    return type('Masked', (Given,), {'mask': mask})(len(mask))


def pair(mask, bias=True):
    """A layer norm and its reader, in double precision, with masks."""
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(6).double(), nn.Linear(6, 4, bias).double()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    model = nn.Sequential(
        DMSLayerNorm.convert_from(norm), DMSLinear.convert_from(linear)
    )
    for layer in model:
        layer.register_mutable_attr('in_channels', container(mask))
    return model


def results(model, x, others):
    out = model(x)
    inputs = [x, *others, *model.parameters()]
    return [out, *torch.autograd.grad(out.sin().sum(), inputs)]


@pytest.mark.parametrize('rows', [False, True])
@pytest.mark.parametrize('bias', [True, False])
def test_output_and_gradients_stay(bias, rows):
    mask = torch.rand(6, dtype=torch.float64, requires_grad=True)
    outputs = torch.rand(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    model = pair(mask, bias)
    others = [mask]
    if rows:
        model[1].rows = Rows(outputs)
        others.append(outputs)
    expected = results(model, x, others)
    move_affines(model, {'0': '1'})
    assert model[0].leaves_affine
    torch.testing.assert_close(results(model, x, others), expected)
    # The norm's own output is not scaled any more.
    assert not torch.allclose(model[0](x) * model[0].weight, model[0](x))


def test_without_masks_both_are_plain():
    model = pair(torch.ones(6, dtype=torch.float64))
    move_affines(model, {'0': '1'})
    for layer in model:
        layer.mutable_attrs.clear()
    x = torch.randn(3, 6, dtype=torch.float64)
    plain = nn.Sequential(*[layer.to_plain_op() for layer in model])
    assert [type(layer) for layer in plain] == [nn.LayerNorm, nn.Linear]
    for layer in plain:
        assert not {'norm', 'affine_in_reader'} & set(vars(layer))
    assert torch.equal(model(x), plain(x))


def test_norms_that_keep_their_affine_part():
    mask = torch.ones(6, dtype=torch.float64)
    ends_a_block = pair(mask)
    ends_a_block[0].depth = Rows(torch.tensor(0.5))
    no_scale = pair(mask)
    no_scale[0].weight = no_scale[0].bias = None
    plain = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4))
    for model in (ends_a_block, no_scale, plain):
        move_affines(model, {'0': '1'})
        assert not getattr(model[0], 'affine_in_reader', False)
