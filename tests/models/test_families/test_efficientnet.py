import pytest
import torch
from torch.nn import functional as F

SIZE = 64


def efficientnet(zoo, arch='b0', **kwargs):
    backbone = dict(type='mmpretrain.EfficientNet', arch=arch, **kwargs)
    return zoo.classifier(backbone, 1280)


def test_efficientnet_b0(family, zoo):
    search = family.everything(efficientnet(zoo), SIZE)
    report = search.mutator.report()
    assert len(report.layers) == 82 and not report.unsearched
    assert dict(report.stages) == {
        'backbone.layers.4.1': 2,
        'backbone.layers.4.4': 2,
        'backbone.layers.5': 3,
    }


@pytest.mark.parametrize('stride', [1, 2, (2, 1)])
@pytest.mark.parametrize('kernel', [3, 4, (1, 5)])
@pytest.mark.parametrize('groups', [1, 4])
def test_adaptive_padding_as_stock(stride, kernel, groups):
    from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding

    from dms_mmrazor.layers import DMSConv2dAdaptivePadding

    plain = Conv2dAdaptivePadding(8, 8, kernel, stride, groups=groups)
    dynamic = DMSConv2dAdaptivePadding.convert_from(plain)
    assert type(dynamic.to_plain_op()) is Conv2dAdaptivePadding
    for size in [(7, 8), (10, 5)]:
        image = torch.rand(2, 8, *size)
        torch.testing.assert_close(dynamic(image), plain(image))


def test_folded_gradients_are_those_of_masked_activations():
    from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding

    from dms_mmrazor.layers import DMSConv2dAdaptivePadding
    from dms_mmrazor.models.mutables import DMSChannelContainer

    class Fixed(DMSChannelContainer):
        mask = None

    plain = Conv2dAdaptivePadding(6, 4, 3, 2).double()
    dynamic = DMSConv2dAdaptivePadding.convert_from(plain)
    container = Fixed(6)
    dynamic.register_mutable_attr('in_channels', container)
    image = torch.rand(2, 6, 9, 9, dtype=torch.float64)
    grads = []
    for layer, masked in ((dynamic, False), (plain, True)):
        mask = torch.linspace(0, 1, 6, dtype=torch.float64).requires_grad_()
        Fixed.mask = mask
        x = image * mask.view(1, -1, 1, 1) if masked else image
        plain.weight.grad = None
        F.gelu(layer(x)).square().sum().backward()
        grads.append((mask.grad, plain.weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1])
