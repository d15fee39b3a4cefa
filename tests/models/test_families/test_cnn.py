"""Convolutional families that need nothing special."""

import pytest

SIZE = 64


def classifier(backbone, channels):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, type=f'mmpretrain.{backbone["type"]}'),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=10,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


FAMILIES = {
    'ResNeXt': (
        dict(type='ResNeXt', depth=50, groups=4, width_per_group=4),
        2048,
    ),
    'SE-ResNet': (dict(type='SEResNet', depth=50), 2048),
    'RegNet': (dict(type='RegNet', arch='regnetx_400mf'), 384),
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.35), 1280),
    'MobileNetV3': (
        dict(type='MobileNetV3', arch='small_050'),
        288,
    ),
    'RepVGG': (dict(type='RepVGG', arch='A0', out_indices=(3,)), 1280),
}


@pytest.mark.parametrize('name', list(FAMILIES))
def test_every_layer_is_searched(family, name):
    search = family.everything(classifier(*FAMILIES[name]), SIZE)
    lost = [
        layer
        for layer in search.mutator.report().layers
        if 'tracer' in layer.inputs + layer.outputs
    ]
    assert not lost


@pytest.mark.parametrize(
    'name, depths',
    [
        ('MobileNetV3', {'backbone.layer5': 4, 'backbone.layer10': 2}),
        (
            'RepVGG',
            {'backbone.stage_2': 3, 'backbone.stage_3': 13},
        ),
    ],
)
def test_depths_of_unusual_blocks(family, name, depths):
    search = family.search(classifier(*FAMILIES[name]), SIZE)
    assert dict(search.mutator.report().stages) == depths
    search.mutator.set_choices(dict.fromkeys(depths, 1))
    before = sum(p.numel() for p in search.architecture.parameters())
    subnet = family.exported(search)
    assert sum(p.numel() for p in subnet.parameters()) < before
    removed = search.mutator.structure().removed_blocks
    assert len(removed) == sum(depths.values()) - len(depths)
