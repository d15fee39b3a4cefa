"""MACs of a supernet whose widths are all halved, against the real thing."""

import pytest

from dms_mmrazor.graph import count_macs

SIZE = 64
TRANSFORMER = dict(
    embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96
)
BACKBONES = {
    'depthwise': (dict(type='MobileNetV2', widen_factor=0.5), 1280),
    'grouped': (dict(type='ResNeXt', depth=50, groups=4), 2048),
    'squeeze-excitation': (dict(type='MobileNetV3', arch='small_050'), 288),
    'attention': (
        dict(
            type='VisionTransformer',
            arch=TRANSFORMER,
            img_size=SIZE,
            patch_size=16,
            out_type='avg_featmap',
        ),
        48,
    ),
    'window attention': (
        dict(
            type='SwinTransformer',
            arch=dict(
                embed_dims=24, depths=[2, 2, 2, 2], num_heads=[2, 4, 6, 8]
            ),
            img_size=SIZE,
            window_size=2,
        ),
        192,
    ),
}


@pytest.fixture
def halved(zoo, request):
    """A search of widths alone, every one of them at its half."""
    backbone, channels = BACKBONES[request.param]
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, type=f'mmpretrain.{backbone["type"]}'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=10,
            in_channels=channels,
        ),
    )
    if 'attention' not in request.param or 'window' in request.param:
        cfg['neck'] = dict(type='mmpretrain.GlobalAveragePooling')
    search = zoo.algorithm(cfg, SIZE, mutator=dict(depth_unit_cfg=None))
    mutator = search.mutator
    assert all(unit.num_channels % 2 == 0 for unit in mutator.units)
    mutator.set_choices({u.name: u.num_channels // 2 for u in mutator.units})
    return search


@pytest.mark.parametrize('halved', list(BACKBONES), indirect=True)
def test_resources_are_those_of_the_exported_model(halved, family, complexity):
    mutator = halved.mutator
    subnet = family.exported(halved)
    counted = {
        'macs': count_macs(subnet, (1, 3, SIZE, SIZE)),
        'params': sum(p.numel() for p in subnet.parameters()),
    }
    for kind, value in counted.items():
        assert mutator.resource(kind) == pytest.approx(value, rel=1e-9)
        soft = mutator.resource(kind, hard=False)
        assert soft == pytest.approx(value, rel=1e-5)
    # Half the inputs and half the outputs: about a quarter.
    ratio = mutator.resource('macs') / mutator.table.full['macs']
    assert 0.2 < ratio < 0.5
    if not hasattr(subnet.backbone, 'patch_embed'):
        # mmengine does not count the products within an attention.
        by_mmengine = complexity(subnet, SIZE)['macs']
        assert counted['macs'] == pytest.approx(by_mmengine, rel=1e-3)
