"""Blocks of parallel convolutions become one of them after an export, too."""

import pytest
import torch
from torch import nn

from dms_mmrazor import Search, apply_structure


def _mmpretrain():
    from mmpretrain.models.backbones.mobileone import MobileOneBlock
    from mmpretrain.models.backbones.repvgg import RepVGGBlock

    depthwise = dict(groups=12, num_convs=2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        RepVGGBlock(8, 12, stride=2),
        RepVGGBlock(12, 12),
        MobileOneBlock(12, 12, 3, padding=1, **depthwise),
        MobileOneBlock(12, 16, 1, num_convs=1),
    )


def _timm():
    timm = pytest.importorskip('timm')
    fastvit, lcnet = timm.models.fastvit, timm.models.lcnetv2
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        fastvit.MobileOneBlock(8, 12, 3, stride=2),
        fastvit.RepMixer(12, layer_scale_init_value=0.5),
        fastvit.RepConditionalPosEnc(12, 12, (3, 3)),
        fastvit.ReparamLargeKernelConv(12, 24, 7, 1, 12, small_kernel=3),
        lcnet.RepDepthwiseSeparable(24, 16, 1, 5, use_rep=True),
    )


def _one_each(model):
    for module in list(model.modules()):
        for name in ('switch_to_deploy', 'reparameterize'):
            if hasattr(module, name):
                getattr(module, name)()
                break


@pytest.mark.parametrize('body', [_mmpretrain, _timm])
def test_they_compute_the_same_as_one(body, tmp_path):
    torch.manual_seed(0)

    def build():
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
        return nn.Sequential(*body(), *head)

    x = torch.rand(4, 3, 16, 16)
    search = Search(build(), x, 0.6, total_steps=2)
    for _ in range(2):
        search.model(x).square().mean().backward()
        search.step()
    path = str(tmp_path / 'subnet.yaml')
    search.export(path, divisor=1)
    small = apply_structure(build(), path)
    widths = [m.num_features for m in small.modules() if hasattr(m, 'eps')]
    assert min(widths) < 12
    small.train()(x)
    small.eval()
    with torch.no_grad():
        expected = small(x)
        _one_each(small)
        torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-5)
    convs = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) < 12
