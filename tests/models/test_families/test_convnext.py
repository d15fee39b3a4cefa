import pytest
import torch
from torch import nn

from dms_mmrazor.models.mutables import DMSChannelContainer

SIZE = 64


def convnext(maps=False, **kwargs):
    backbone = dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[2, 2, 3, 2], channels=[16, 24, 32, 48]),
        **kwargs,
    )
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling') if maps else None,
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=10,
            in_channels=48,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(linear_pw_conv=False, drop_path_rate=0.1),
        dict(use_grn=True, layer_scale_init_value=0.0),
        dict(gap_before_final_norm=False, maps=True),
    ],
)
def test_convnext(family, kwargs):
    search = family.everything(convnext(**kwargs), SIZE)
    report = search.mutator.report()
    assert len(report.layers) == 32 and len(report.units) == 13
    assert [blocks for _, blocks in report.stages] == [2, 2, 3, 2]


def test_feature_maps_that_the_head_does_not_use_hold_nothing(family):
    search = family.search(convnext(out_indices=[2, 3]), SIZE)
    assert not search.mutator.report().unsearched
    family.structures(search, SIZE, number=3)


def test_layer_scales_are_narrowed_with_their_unit(family):
    search = family.search(convnext(), SIZE)
    unit = search.mutator.structure().units[0]
    names = [part.layer for part in unit.outputs]
    assert 'backbone.stages.0.0.gamma' in names
    search.mutator.set_choices({unit.name: 5})
    subnet = family.exported(search)
    gamma = subnet.backbone.stages[0][0].gamma
    assert isinstance(gamma, nn.Parameter) and gamma.shape == (5,)
    norm = subnet.backbone.stages[0][0].norm
    assert norm.normalized_shape == (5,) and norm.num_channels == 5


class Fixed(DMSChannelContainer):
    mask = None


def dynamic_with_mask(dynamic_type, plain, channels, mask):
    dynamic = dynamic_type.convert_from(plain)
    container = type('Given', (Fixed,), {'mask': mask})(channels)
    dynamic.register_mutable_attr('in_channels', container)
    return dynamic


def reference_norm(x, mask, weight, bias, eps):
    mean = (x * mask).sum(-1, keepdim=True) / mask.sum()
    var = ((x - mean).square() * mask).sum(-1, keepdim=True) / mask.sum()
    return (x - mean) / (var + eps).sqrt() * weight + bias


def test_masked_layer_norm_gradients():
    from dms_mmrazor.layers.layer_norm import masked_layer_norm

    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    mask, weight, bias = (
        torch.rand(7, dtype=torch.float64).add(0.05).requires_grad_()
        for _ in range(3)
    )
    inputs = (x, mask, weight, bias)
    results = []
    for function in (masked_layer_norm, reference_norm):
        out = function(*inputs, 1e-6)
        grads = torch.autograd.grad(out.square().mul(x.exp()).sum(), inputs)
        results.append((out, *grads))
    torch.testing.assert_close(results[0], results[1])
    assert torch.autograd.gradcheck(
        lambda *args: masked_layer_norm(*args, 1e-6), inputs
    )


@pytest.mark.parametrize('affine', [True, False])
def test_layer_norm_with_a_hard_mask_is_the_narrow_one(affine):
    from dms_mmrazor.layers import DMSLayerNorm, narrow_layer

    mask = torch.tensor([1.0, 0, 1, 1, 0])
    plain = nn.LayerNorm(5, elementwise_affine=affine)
    if affine:
        nn.init.uniform_(plain.weight)
        nn.init.uniform_(plain.bias)
    dynamic = dynamic_with_mask(DMSLayerNorm, plain, 5, mask)
    x = torch.randn(4, 5)
    kept = mask.nonzero().flatten()
    out = dynamic(x)[:, kept]
    narrow = narrow_layer(dynamic.to_plain_op(), kept, None)
    assert type(narrow) is nn.LayerNorm
    torch.testing.assert_close(out, narrow(x[:, kept]))


@pytest.mark.parametrize('layout', ['channel_first', 'channel_last'])
@pytest.mark.parametrize('name', ['LayerNorm2d', 'GRN'])
def test_mmpretrain_norms_with_a_hard_mask(name, layout):
    from mmpretrain.models.utils import norm

    from dms_mmrazor.layers import masked_form, narrow_layer

    plain_type = getattr(norm, name)
    plain = plain_type(6)
    for parameter in plain.parameters():
        nn.init.uniform_(parameter)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1])
    kept = mask.nonzero().flatten()
    dynamic = dynamic_with_mask(masked_form(plain_type), plain, 6, mask)
    x = torch.randn(2, 6, 4, 4)
    dim = 1
    if layout == 'channel_last':
        x, dim = x.permute(0, 2, 3, 1), 3
    out = dynamic(x, data_format=layout).index_select(dim, kept)
    narrow = narrow_layer(dynamic.to_plain_op(), kept, None)
    assert type(narrow) is plain_type
    expected = narrow(x.index_select(dim, kept), data_format=layout)
    torch.testing.assert_close(out, expected)
