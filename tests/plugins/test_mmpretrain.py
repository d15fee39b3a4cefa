"""Blocks of mmpretrain that are more than their layers."""

import pytest
import torch
from mmengine.registry import init_default_scope

from dms_mmrazor import Search
from dms_mmrazor.cli.coverage import measure_coverage

pytest.importorskip('mmpretrain')


POOLING = dict(type='GlobalAveragePooling')


def classifier(**backbone):
    width, neck = backbone.pop('width'), backbone.pop('neck', POOLING)
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=neck,
        head=dict(type='LinearClsHead', num_classes=5, in_channels=width),
    )


HORNET = classifier(
    type='HorNet',
    arch=dict(
        base_dim=8,
        depths=[1, 1, 1, 1],
        orders=[2, 3, 2, 2],
        dw_cfg=[dict(type='DW', kernel_size=3)] * 4,
    ),
    width=64,
    neck=None,
)


REVERSIBLE = classifier(
    type='RevVisionTransformer',
    arch=dict(
        embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48
    ),
    img_size=32,
    patch_size=8,
    width=48,
    neck=None,
)


def cover(architecture, **mutator):
    init_default_scope('mmpretrain')
    size = (1, 3, 32, 32)
    found = measure_coverage(architecture, size, mutator, structures=3)
    assert found.agreement.outputs < 1e-5
    assert found.agreement.macs < 1e-9 and found.agreement.params < 1e-9
    assert found.own_loss and found.untrained == ''
    return found


def test_a_split_by_a_list_of_numbers_follows():
    found = cover(HORNET)
    assert found.searched == found.layers and found.stages == 0


def test_modules_that_a_block_makes_on_the_spot_are_looked_into():
    found = cover(REVERSIBLE)
    assert found.searched == found.layers


def test_a_backward_pass_of_its_own_gives_the_same_importances(zoo):
    images, found = torch.rand(2, 3, 32, 32), []
    for plain_backward in (True, False):
        torch.manual_seed(0)
        model = zoo.plain(REVERSIBLE)
        model.backbone.no_custom_backward = plain_backward
        search = Search(model, images, 0.5, 2)
        search.model.train()(images).square().mean().backward()
        search.step()
        found.append(search.mutator.topk.importance)
    assert (found[0] > 0).all()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-12)
