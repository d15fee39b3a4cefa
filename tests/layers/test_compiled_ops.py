"""What is written out for autograd computes the same when compiled."""

import pytest
import torch

from dms_mmrazor.layers.fold import fold_masks
from dms_mmrazor.layers.layer_norm import masked_layer_norm
from dms_mmrazor.models.mutables import LayerMasks

pytestmark = pytest.mark.skipif(
    not hasattr(torch, 'compile'), reason='torch 2 compiles'
)


def compiled_like_eager(function, *shapes):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.rand(shape, generator=generator, dtype=torch.float64)
        for shape in shapes
    ]
    results = []
    compiled = torch.compile(function, backend='aot_eager', fullgraph=True)
    for call in (function, compiled):
        leaves = [t.clone().requires_grad_() for t in tensors]
        output = call(*leaves)
        # Autograd keeps the output itself for this one's gradient.
        grads = torch.autograd.grad(output.sin().sum(), leaves)
        results.append((output, *grads))
    for eager, actual in zip(*results):
        torch.testing.assert_close(actual, eager, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('affine', [0, 1, 2])
def test_masked_layer_norm(affine):
    def norm(x, mask, *parameters):
        weight, bias = (*parameters, None, None)[:2]
        return masked_layer_norm(x, mask, weight, bias, 1e-6).sin()

    compiled_like_eager(norm, (2, 5, 8), (8,), *[(8,)] * affine)


@pytest.mark.parametrize('groups', [1, 2])
def test_fold_masks(groups):
    # Two masks, which only the one written out does.
    def fold(weight, bias, inputs, outputs, depth):
        return torch.cat(
            [
                tensor.sin().flatten()
                for tensor in fold_masks(
                    weight, bias, LayerMasks(inputs, outputs, depth), groups
                )
            ]
        )

    compiled_like_eager(fold, (8, 6 // groups, 3, 3), (8,), (6,), (8,), ())
