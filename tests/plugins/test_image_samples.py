"""Detectors of mmdet through a whole search, with their own losses."""

import pytest
import torch

from dms_mmrazor.graph.demo import demo_samples
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import export_subnet

SIZE = (1, 3, 64, 64)


def architecture(config, **changes):
    """A small one of mmdet's, without weights of others."""
    from mmengine.config import ConfigDict
    from mmengine.hub import get_config

    cfg = get_config(f'mmdet::{config}').model
    for key, value in changes.items():
        part = cfg
        *path, last = key.split('__')
        for name in path:
            part = part[name]
        part[last] = value
    cfg.backbone.init_cfg = None
    return ConfigDict(cfg, _scope_='mmdet')


def detr():
    return architecture(
        'detr/detr_r50_8xb2-150e_coco.py',
        num_queries=5,
        backbone__depth=18,
        backbone__base_channels=8,
        backbone__stem_channels=8,
        neck__in_channels=[64],
        encoder__num_layers=1,
        decoder__num_layers=2,
    )


def cascade():
    cfg = architecture(
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        backbone__depth=18,
        backbone__base_channels=8,
        backbone__stem_channels=8,
        neck__in_channels=[8, 16, 32, 64],
        neck__out_channels=16,
        rpn_head__in_channels=16,
        rpn_head__feat_channels=16,
    )
    cfg.test_cfg.rpn.max_per_img = 20
    head = cfg.roi_head
    for part in (head.bbox_roi_extractor, head.mask_roi_extractor):
        part.out_channels = 16
    for part in head.bbox_head:
        part.update(in_channels=16, fc_out_channels=16)
    head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1)
    return cfg


def swin():
    cfg = architecture(
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        neck__in_channels=[32, 64],
        neck__out_channels=16,
        neck__start_level=0,
        bbox_head__in_channels=16,
        bbox_head__feat_channels=16,
        bbox_head__stacked_convs=1,
    )
    cfg.backbone = dict(
        type='SwinTransformer',
        embed_dims=16,
        depths=(2, 2, 2),
        num_heads=(2, 4, 4),
        strides=(4, 2, 2),
        window_size=3,
        out_indices=(1, 2),
    )
    return cfg


@pytest.mark.timeout(240)  # a few seconds of work
@pytest.mark.parametrize('make', [detr, cascade, swin])
def test_search_export_train(zoo, randomize_structure, make):
    torch.manual_seed(0)
    search = DMSAlgorithm(
        zoo.plain(make()),
        mutator=dict(type='DMSMutator', parse_cfg=dict(demo_input=SIZE)),
    )
    report = search.mutator.report()
    assert len(report.unsearched) <= 10, report.unsearched
    randomize_structure(search.mutator)
    subnet = export_subnet(search, divisor=1)
    assert subnet.difference <= 1e-5
    model = subnet.model.train()
    samples = next(demo_samples(model, SIZE))
    losses = model(torch.rand(2, *SIZE[1:]), samples, mode='loss')
    terms = [
        sum(value) if isinstance(value, list) else value
        for key, value in losses.items()
        if 'loss' in key
    ]
    total = sum(terms)
    total.backward()
    assert torch.isfinite(total)


def test_a_swin_is_searched_with_its_heads(zoo):
    search = DMSAlgorithm(
        zoo.plain(swin()),
        mutator=dict(type='DMSMutator', parse_cfg=dict(demo_input=SIZE)),
    )
    report = search.mutator.report()
    assert not report.unsearched
    units = [unit.rpartition('.w_msa.')[2] for unit, _ in report.units]
    for dims in ('heads', 'qk_dims', 'v_dims'):
        assert units.count(dims) == 6
    assert [number for _, number in report.stages] == [2, 2, 2]
