import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_mmrazor.layers import fold_depth, fold_input_mask
from dms_mmrazor.layers.fold import fold_masks
from dms_mmrazor.models.mutables import LayerMasks

CLOSE = dict(rtol=1e-9, atol=1e-9)


@pytest.fixture(params=[True, False], ids=['small', 'large'], autouse=True)
def size(request, monkeypatch):
    """Every test by autograd's product, and by the one written out."""
    if not request.param:
        from dms_mmrazor.layers import fold

        monkeypatch.setattr(fold, '_SMALL', 0)


def double(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_same(forward, folded, tensors):
    """Outputs and the gradients of all tensors are equal."""
    results = []
    for function in (forward, folded):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        output = function(*leaves)
        weights = double(*output.shape, seed=9)
        grads = torch.autograd.grad((output * weights).sum(), leaves)
        results.append((output, *grads))
    for expected, actual in zip(*results):
        torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize(
    'channels, outputs, groups, options',
    [
        (6, 8, 1, dict(padding=1)),
        (6, 8, 1, dict(stride=2, dilation=2)),
        (6, 8, 2, dict(padding=1)),
        (12, 12, 4, dict(stride=2)),
        (6, 6, 6, dict(padding=1)),
        (6, 12, 6, dict()),
    ],
)
def test_conv_masks_equal_masked_activations(
    channels, outputs, groups, options
):
    def masked(image, weight, bias, mask):
        image = image * mask.view(1, -1, 1, 1)
        return F.conv2d(image, weight, bias, groups=groups, **options)

    def folded(image, weight, bias, mask):
        weight = fold_input_mask(weight, mask, groups)
        return F.conv2d(image, weight, bias, groups=groups, **options)

    tensors = [
        double(2, channels, 9, 9),
        double(outputs, channels // groups, 3, 3, seed=1),
        double(outputs, seed=2),
        double(channels, seed=3).sigmoid(),
    ]
    assert_same(masked, folded, tensors)


@pytest.mark.parametrize('leading', [(5,), (2, 3)])
def test_linear_masks_equal_masked_activations(leading):
    tensors = [
        double(*leading, 7),
        double(4, 7, seed=1),
        double(4, seed=2),
        double(7, seed=3).sigmoid(),
    ]
    assert_same(
        lambda x, weight, bias, mask: F.linear(x * mask, weight, bias),
        lambda x, weight, bias, mask: F.linear(
            x, fold_input_mask(weight, mask), bias
        ),
        tensors,
    )


@pytest.mark.parametrize('training', [True, False])
def test_depth_of_a_norm_equals_a_scaled_branch(training):
    image, weight, bias = double(4, 3, 5, 5), double(3), double(3, seed=1)
    mask = torch.tensor(0.3, dtype=torch.float64)

    def norm(image, weight, bias):
        mean, var = double(3, seed=4), double(3, seed=5).exp()
        return F.batch_norm(image, mean, var, weight, bias, training)

    assert_same(
        lambda x, weight, bias, mask: x + mask * norm(x, weight, bias),
        lambda x, weight, bias, mask: (
            x + norm(x, *fold_depth(weight, bias, mask))
        ),
        [image, weight, bias, mask],
    )


@pytest.mark.parametrize('bias', [True, False])
def test_depth_of_a_conv_equals_a_scaled_branch(bias):
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=bias).double()
    image, mask = double(2, 3, 5, 5), torch.tensor(0.7, dtype=torch.float64)
    weight, shift = fold_depth(conv.weight, conv.bias, mask)
    torch.testing.assert_close(
        F.conv2d(image, weight, shift, padding=1), mask * conv(image), **CLOSE
    )


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('groups', [1, 2, 6])
def test_all_masks_of_a_conv_together(groups, channels_last):
    order = torch.channels_last if channels_last else torch.contiguous_format

    def masked(image, weight, bias, inputs, outputs, depth):
        image = image * inputs.view(1, -1, 1, 1)
        image = F.conv2d(image, weight, bias, groups=groups)
        return depth * outputs.view(1, -1, 1, 1) * image

    def folded(image, weight, bias, *masks):
        weight = weight.contiguous(memory_format=order)
        weight, bias = fold_masks(weight, bias, LayerMasks(*masks), groups)
        assert weight.is_contiguous(memory_format=order)
        return F.conv2d(image, weight, bias, groups=groups)

    tensors = [
        double(2, 6, 5, 5),
        double(12, 6 // groups, 3, 3, seed=1),
        double(12, seed=2),
        double(6, seed=3).sigmoid(),
        double(12, seed=4).sigmoid(),
        torch.tensor(0.3, dtype=torch.float64),
    ]
    assert_same(masked, folded, tensors)


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_all_masks_of_a_transposed_conv_together(groups):
    def masked(image, weight, bias, inputs, outputs, depth):
        image = image * inputs.view(1, -1, 1, 1)
        image = F.conv_transpose2d(image, weight, bias, groups=groups)
        return depth * outputs.view(1, -1, 1, 1) * image

    def folded(image, weight, bias, *masks):
        weight, bias = fold_masks(
            weight, bias, LayerMasks(*masks), groups, transposed=True
        )
        return F.conv_transpose2d(image, weight, bias, groups=groups)

    tensors = [
        double(2, 6, 5, 5),
        double(6, 12 // groups, 3, 3, seed=1),
        double(12, seed=2),
        double(6, seed=3).sigmoid(),
        double(12, seed=4).sigmoid(),
        torch.tensor(0.3, dtype=torch.float64),
    ]
    assert_same(masked, folded, tensors)


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('missing', [None, 'inputs', 'outputs', 'depth'])
def test_weights_in_half_precision_stay_so(missing, transposed):
    masks = {
        'inputs': double(6).sigmoid().float().requires_grad_(),
        'outputs': double(6, seed=1).sigmoid().float().requires_grad_(),
        'depth': torch.tensor([0.3], requires_grad=True),
    }
    masks[missing or 'depth'] = None
    weight, bias = double(6, 6, 3, 3).half(), double(6, seed=2).half()
    for values in (weight, bias):
        values.requires_grad_()
    folded = fold_masks(
        weight, bias, LayerMasks(**masks), transposed=transposed
    )
    assert [values.dtype for values in folded] == [torch.half] * 2
    sum(values.float().sum() for values in folded).backward()
    found = [mask for mask in masks.values() if mask is not None]
    assert all(mask.grad.dtype is torch.float32 for mask in found)
    assert weight.grad.dtype is torch.half


def test_folding_has_a_second_derivative():
    tensors = [double(4, 3), double(3, seed=1), double(4, seed=2)]
    for tensor in tensors:
        tensor.requires_grad_()

    def folded(weight, inputs, outputs):
        return fold_masks(weight, None, LayerMasks(inputs, outputs))[0]

    assert torch.autograd.gradgradcheck(folded, tensors)


def test_folding_keeps_no_copy_of_the_weight():
    weight = torch.rand(8, 6, requires_grad=True)
    inputs, outputs = torch.rand(6), torch.rand(8)
    inputs.requires_grad_(), outputs.requires_grad_()
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        fold_masks(weight, None, LayerMasks(inputs, outputs))
    large = [t for t in saved if t.numel() == weight.numel()]
    assert [t.data_ptr() for t in large] == [weight.data_ptr()]
