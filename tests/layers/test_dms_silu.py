"""The activation at the end of a residual branch."""

import copy

import pytest
import torch
from torch import nn

from dms_mmrazor.layers import DMSSiLU
from dms_mmrazor.models.mutables import LayerMasks


def masked(depth, inplace=False):
    layer = DMSSiLU.convert_from(nn.SiLU(inplace))
    layer.given = LayerMasks(depth=depth)
    return layer


@pytest.mark.parametrize('shape', [(), (1,)])
@pytest.mark.parametrize('inplace', [False, True])
def test_output_and_gradients(inplace, shape):
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    depth = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    layer = masked(depth, inplace)
    results = []
    for out in (layer(x * 1.0), depth * nn.functional.silu(x)):
        results.append(
            (out, *torch.autograd.grad(out.sin().sum(), (x, depth)))
        )
    torch.testing.assert_close(*results)


def test_keeps_its_input_alone():
    saved = []
    x = torch.randn(8, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t) or t, lambda t: t
    ):
        masked(torch.tensor([0.5], requires_grad=True))(x)
    large = [t for t in saved if t.numel() == x.numel()]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]


def test_gradient_of_the_mask_in_half_precision_is_summed_in_full():
    # 70,000 ones are more than half precision can count.
    x = torch.full((70000,), 1.0, dtype=torch.bfloat16, requires_grad=True)
    depth = torch.ones(1, requires_grad=True)
    out = masked(depth)(x)
    assert out.dtype == torch.bfloat16
    out.backward(torch.ones_like(out))
    expected = 70000 * float(nn.functional.silu(x[:1]))
    assert depth.grad.dtype == torch.float32
    assert float(depth.grad) == pytest.approx(expected, rel=1e-3)


def test_without_a_mask_it_is_plain():
    layer = DMSSiLU.convert_from(nn.SiLU(inplace=True))
    plain = copy.deepcopy(layer).to_plain_op()
    assert type(plain) is nn.SiLU and plain.inplace
    x = torch.randn(5)
    assert torch.equal(layer(x.clone()), plain(x.clone()))
    assert torch.equal(DMSSiLU()(x), plain(x))
