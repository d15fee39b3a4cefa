import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn

from dms_mmrazor.layers import DMSBatchNorm2d


class FixedDepth(NamedTuple):
    mask: torch.Tensor


def pair(**kwargs):
    """A plain norm with some state, and a dynamic one with the same."""
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5, **kwargs).double()
    if plain.affine:
        nn.init.uniform_(plain.weight, 0.5, 1.5)
        nn.init.normal_(plain.bias)
    dynamic = DMSBatchNorm2d.convert_from(copy.deepcopy(plain))
    return plain, dynamic


def run(norm, training, steps=3):
    """Outputs, gradients and the final state of some steps."""
    torch.manual_seed(1)
    norm.train(training)
    results = []
    for _ in range(steps):
        image = torch.randn(4, 5, 3, 3, dtype=torch.float64) * 3 + 1
        image.requires_grad_()
        output = norm(image)
        output.square().sum().backward()
        results += [output.detach(), image.grad]
    results += [p.grad for p in norm.parameters()]
    return results + list(norm.state_dict().values())


KINDS = [
    dict(),
    dict(momentum=None),
    dict(momentum=0.3, eps=1e-3),
    dict(track_running_stats=False),
]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'masked, kwargs',
    [
        *((True, kind) for kind in KINDS),
        *((False, kind) for kind in [*KINDS, dict(affine=False)]),
    ],
)
def test_equals_batch_norm(masked, kwargs, training):
    plain, dynamic = pair(**kwargs)
    if masked:
        dynamic.depth = FixedDepth(torch.ones((), dtype=torch.float64))
    expected = run(plain, training)
    for actual, value in zip(run(dynamic, training), expected):
        torch.testing.assert_close(actual, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kwargs', KINDS)
def test_depth_mask_scales_the_output_and_not_the_statistics(kwargs, training):
    plain, dynamic = pair(**kwargs)
    dynamic.depth = FixedDepth(torch.tensor(0.25, dtype=torch.float64))
    image = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    plain.train(training), dynamic.train(training)
    for _ in range(2):
        torch.testing.assert_close(dynamic(image), 0.25 * plain(image))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(dynamic.state_dict()[name], value)


def test_wrong_number_of_dimensions_fails_as_before():
    _, dynamic = pair()
    dynamic.depth = FixedDepth(torch.tensor(0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match='4D'):
        dynamic(torch.rand(2, 5, dtype=torch.float64))
