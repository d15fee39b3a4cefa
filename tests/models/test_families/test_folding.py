"""Folded masks compute what masks on activations compute, in all families."""

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))
from unfolded import gradients, unfold  # noqa: E402

SIZE = 64
RATIOS = 'ratios'


def classifier(backbone, channels, **head):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, type=f'mmpretrain.{backbone["type"]}'),
        neck=None if head else dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            dict(type='mmpretrain.LinearClsHead'),
            num_classes=10,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            **head,
        ),
    )


VIT = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SWIN = dict(embed_dims=24, depths=[2, 2], num_heads=[3, 6])
CONVNEXT = dict(depths=[2, 2, 2, 2], channels=[8, 16, 24, 32])
FAMILIES = {
    'ResNet': (dict(type='ResNet', depth=50), 2048),
    'ResNeXt': (
        dict(type='ResNeXt', depth=50, groups=4, width_per_group=4),
        2048,
    ),
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.35), 1280),
    'EfficientNet': (dict(type='EfficientNet', arch='b0'), 1280),
    'RepVGG': (dict(type='RepVGG', arch='A0', out_indices=(3,)), 1280),
    'ConvNeXt': (
        dict(type='ConvNeXt', arch=CONVNEXT, gap_before_final_norm=False),
        32,
    ),
    'ConvNeXtV2': (
        dict(
            type='ConvNeXt',
            arch=CONVNEXT,
            use_grn=True,
            layer_scale_init_value=0.0,
            gap_before_final_norm=False,
        ),
        32,
    ),
    'Swin': (
        dict(
            type='SwinTransformer',
            arch=SWIN,
            img_size=SIZE,
            window_size=4,
            out_indices=(1,),
        ),
        48,
    ),
}
ARCHITECTURES = {
    **{name: classifier(*family) for name, family in FAMILIES.items()},
    'DeiT': classifier(
        dict(type='VisionTransformer', arch=VIT, img_size=SIZE, patch_size=16),
        48,
        type='mmpretrain.VisionTransformerClsHead',
    ),
}


@pytest.fixture
def searching(family):
    """A search in its middle, and the same one with unfolded masks."""

    def make(name, dtype):
        search = family.search(ARCHITECTURES[name], SIZE)
        if dtype == torch.float64:
            search = search.double()
        for module in search.modules():
            if hasattr(module, 'drop_prob'):
                module.drop_prob = 0.0  # stochastic depth is random
        topk = search.mutator.topk
        topk.importance.copy_(torch.rand(topk.importance.shape))
        topk.num_updates.fill_(1)
        topk.pruning_ratio.data.copy_(0.5 * torch.rand(len(topk.sizes)))
        topk.project_()
        search.set_constraints({'macs': 1.0})
        search.set_targets({'macs': search.mutator.table.full['macs'] / 4})
        return search, unfold(copy.deepcopy(search))

    return make


def relative(actual, expected):
    """Size of the difference relative to the size of a tensor."""
    return float((actual - expected).norm() / expected.norm())


def compare(folded, unfolded, data):
    """Relative differences of the loss and of every gradient."""
    actual, expected = gradients(folded, data), gradients(unfolded, data)
    assert actual.keys() == expected.keys()
    assert expected['masks'].abs().max() > 0
    assert expected[RATIOS].abs().min() > 0
    # Gradients that cancel (of a bias before a norm) are noise around zero.
    largest = max(float(g.abs().max()) for g in expected.values())
    return {
        key: relative(actual[key], value)
        for key, value in expected.items()
        if value.abs().max() > 1e-9 * largest
    }


# Layer norms whose affine part their reader applies.
MOVED = {'ConvNeXt': 8, 'ConvNeXtV2': 8, 'Swin': 5, 'DeiT': 4}


def moved_affines(search):
    from dms_mmrazor.layers import DMSLinear

    layers = search.architecture.modules()
    return sum(isinstance(m, DMSLinear) and m.norm is not None for m in layers)


@pytest.mark.parametrize('name', list(ARCHITECTURES))
def test_folded_masks_equal_masks_on_activations(searching, batch, name):
    folded, unfolded = searching(name, torch.float64)
    assert moved_affines(folded) == MOVED.get(name, 0)
    data = batch(4, SIZE)
    data['inputs'] = data['inputs'].double()
    differences = compare(folded, unfolded, data)
    assert len(differences) > 20
    assert max(differences.values()) < 1e-9


@pytest.mark.parametrize('name', list(ARCHITECTURES))
def test_folded_masks_in_single_precision(searching, batch, name):
    """Weights' gradients together: single ones may be small sums of large."""
    folded, unfolded = searching(name, torch.float32)
    data = batch(4, SIZE)
    actual, expected = gradients(folded, data), gradients(unfolded, data)
    for found in (actual, expected):
        weights = [k for k in found if k.startswith('architecture')]
        parts = [found.pop(key).flatten() for key in weights]
        found['weights'] = torch.cat(parts)
    assert set(expected) == {'loss', 'weights', 'masks', RATIOS}
    for key, value in expected.items():
        assert relative(actual[key], value) < 1e-5, key
