"""Resources of real networks as functions of the pruning ratios."""

import pytest
import torch

KINDS = ('macs', 'params')


def network(zoo, name):
    if name == 'ResNet-50':
        return zoo.resnet(50)
    backbone, channels = {
        'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.35), 1280),
        'ConvNeXt': (
            dict(
                type='ConvNeXt',
                arch=dict(depths=[2, 2, 2, 2], channels=[16, 24, 32, 48]),
            ),
            48,
        ),
        'DeiT': (
            dict(type='VisionTransformer', arch='deit-tiny', img_size=64),
            192,
        ),
    }[name]
    head = dict(num_classes=10, in_channels=channels)
    kind = 'VisionTransformerClsHead' if name == 'DeiT' else 'LinearClsHead'
    pools = name == 'MobileNetV2'
    neck = dict(type='mmpretrain.GlobalAveragePooling') if pools else None
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, _scope_='mmpretrain'),
        neck=neck,
        head=dict(head, type=f'mmpretrain.{kind}'),
    )


def at(mutator, ratios, kind):
    """r(a) in float64."""
    mutator.topk.pruning_ratio.data.copy_(ratios)
    return mutator.table.soft(kind)


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize(
    'name', ['ResNet-50', 'MobileNetV2', 'ConvNeXt', 'DeiT']
)
def test_gradients_agree_with_finite_differences(zoo, name, seed):
    search = zoo.algorithm(network(zoo, name), 64, mutator=dict(verify=False))
    mutator = search.mutator.double()
    topk = mutator.topk
    generator = torch.Generator().manual_seed(seed)
    topk.importance.uniform_(generator=generator)
    topk.num_updates.fill_(1)
    ratios = 0.1 + 0.7 * torch.rand(
        len(topk.sizes), dtype=torch.float64, generator=generator
    )
    step = 1e-5
    for kind in KINDS:
        topk.pruning_ratio.grad = None
        value = at(mutator, ratios, kind)
        value.backward()
        grad = topk.pruning_ratio.grad.clone()
        assert grad.dtype == torch.float64 and (grad <= 0).all()
        # Masks of many blocks are as good as hard: next to no gradient.
        assert (grad < 0).float().mean() > 0.7
        scale = float(grad.abs().max())
        for index in range(len(ratios)):
            shift = torch.zeros_like(ratios)
            shift[index] = step
            with torch.no_grad():
                higher = at(mutator, ratios + shift, kind)
                lower = at(mutator, ratios - shift, kind)
            slope = float(higher - lower) / (2 * step)
            assert float(grad[index]) == pytest.approx(
                slope, rel=1e-6, abs=1e-9 * scale
            ), (kind, index)
