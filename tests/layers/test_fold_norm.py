"""A norm's affine part and masks in the weight of a linear layer."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from dms_mmrazor.layers.fold_norm import fold_norm

PRESENT = list(itertools.product([False, True], repeat=3))


def arguments(bias=True, shift=True, outputs=True, dtype=torch.float64):
    """weight, bias, inputs, scale, shift, outputs."""
    generator = torch.Generator().manual_seed(0)

    def random(wanted, *shape):
        if not wanted:
            return None
        value = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return value.to(dtype).requires_grad_()

    return (
        random(True, 4, 6),
        random(bias, 4),
        random(True, 6),
        random(True, 6),
        random(shift, 6),
        random(outputs, 4),
    )


def unfolded(x, weight, bias, inputs, scale, shift, outputs):
    x = x * scale if shift is None else x * scale + shift
    out = F.linear(x * inputs, weight, bias)
    return out if outputs is None else out * outputs


@pytest.mark.parametrize('bias,shift,outputs', PRESENT)
def test_output_and_gradients(bias, shift, outputs):
    given = arguments(bias, shift, outputs)
    leaves = [tensor for tensor in given if tensor is not None]
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    results = []
    folded = F.linear(x, *fold_norm(*given))
    for out in (folded, unfolded(x, *given)):
        results.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('outputs', [False, True])
def test_frozen_weights_get_no_gradient(outputs):
    given = arguments(outputs=outputs)
    frozen = [given[0].detach(), given[1].detach(), *given[2:]]
    x = torch.randn(3, 6, dtype=torch.float64)
    masks = [given[2], *[given[5]] * outputs]
    grads = [
        torch.autograd.grad(out.sin().sum(), masks)
        for out in (F.linear(x, *fold_norm(*frozen)), unfolded(x, *given))
    ]
    torch.testing.assert_close(*grads)


def test_mixed_precision_leaves_masks_and_weights_alone():
    given = arguments(dtype=torch.float32)
    expected = fold_norm(*given)
    with torch.autocast('cpu', torch.bfloat16):
        actual = fold_norm(*given)
    for a, b in zip(actual, expected):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
