"""Detectors of mmyolo and mmdet, from their own configs."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config

SIZE = 64
CLASSES = 3

CONFIGS = {
    'YOLOv5': 'mmyolo::yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py',
    'YOLOv8': 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py',
    'YOLOX': 'mmyolo::yolox/yolox_tiny_fast_8xb8-300e_coco.py',
    'RTMDet': 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py',
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'Faster R-CNN': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
}


def replaced(cfg, **values):
    """A config with all values of some keys replaced, however deep."""
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(replaced(part, **values) for part in cfg)
    if not isinstance(cfg, dict):
        return cfg
    parts = {
        key: values[key] if key in values else replaced(part, **values)
        for key, part in cfg.items()
    }
    return ConfigDict(parts)


def architecture(name, **values):
    """A stock detector's config, for three classes and without downloads."""
    import dms_mmrazor.plugin  # noqa: F401

    scope = CONFIGS[name].partition('::')[0]
    cfg = get_config(CONFIGS[name]).model
    return replaced(
        ConfigDict(cfg, _scope_=scope),
        num_classes=CLASSES,
        init_cfg=None,
        **values,
    )


def small(name):
    """The same, with little to compute."""
    if name == 'RetinaNet':
        cfg = architecture(name, feat_channels=32, out_channels=32)
        cfg.bbox_head.in_channels = 32
        return cfg
    if name in ('Faster R-CNN', 'Mask R-CNN'):
        cfg = architecture(
            name,
            out_channels=32,
            feat_channels=32,
            fc_out_channels=64,
            conv_out_channels=32,
        )
        if name == 'Mask R-CNN':
            cfg.roi_head.mask_head.in_channels = 32
        cfg.backbone.update(depth=18)
        cfg.neck.in_channels = [64, 128, 256, 512]
        cfg.rpn_head.in_channels = cfg.roi_head.bbox_head.in_channels = 32
        cfg.test_cfg.rpn.max_per_img = 10
        cfg.train_cfg.rpn_proposal.max_per_img = 10
        return cfg
    return architecture(name)


def boxes(number, size, num_classes, seed=0):
    """A batch of random images, each with two boxes."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(number, 3, size, size, generator=generator)
    samples = []
    for _ in range(number):
        corners = torch.rand(2, 2, generator=generator) * size / 2
        sizes = size / 8 + torch.rand(2, 2, generator=generator) * size / 4
        labels = torch.randint(CLASSES, (2,), generator=generator)
        shapes = dict.fromkeys(
            ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'),
            (size, size),
        )
        sample = DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + sizes], 1), labels=labels
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def fast_boxes(number, size, num_classes, seed=0):
    """The same, as mmyolo's fast pipelines collate it."""
    batch = boxes(number, size, num_classes, seed)
    rows = [
        [index, int(label), *box.tolist()]
        for index, sample in enumerate(batch['data_samples'])
        for label, box in zip(
            sample.gt_instances.labels, sample.gt_instances.bboxes
        )
    ]
    samples = dict(
        bboxes_labels=torch.tensor(rows),
        img_metas=[sample.metainfo for sample in batch['data_samples']],
    )
    return dict(inputs=batch['inputs'], data_samples=samples)


@pytest.fixture
def detector(family):
    family.batch = fast_boxes
    return family


def unsearched_sides(search):
    """(layer, 'input' or 'output') of all sides without a unit."""
    return {
        (layer.name, side)
        for layer in search.mutator.report().layers
        for side, text in (('input', layer.inputs), ('output', layer.outputs))
        if not text.startswith('unit ')
    }


PREDICTORS = {
    'YOLOv5': ['head_module.convs_pred'],
    'YOLOv8': ['head_module.cls_preds', 'head_module.reg_preds'],
    'YOLOX': ['head_module.multi_level_conv_'],
    'RTMDet': ['head_module.rtm_cls', 'head_module.rtm_reg'],
    'RetinaNet': ['bbox_head.retina_'],
    'Faster R-CNN': ['rpn_head.rpn_cls', 'rpn_head.rpn_reg', 'fc_'],
}


@pytest.mark.parametrize('name', list(PREDICTORS))
def test_everything_but_the_predictors_is_searched(detector, name):
    if CONFIGS[name].startswith('mmdet'):
        detector.batch = boxes
        detector.lr = 1e-6  # losses begin in the thousands
    search = detector.everything(small(name), SIZE)
    inputs = [n for n, side in unsearched_sides(search) if side == 'input']
    outputs = [n for n, side in unsearched_sides(search) if side == 'output']
    assert len(inputs) == 1 and 'backbone' in inputs[0]
    for layer in outputs:
        assert any(part in layer for part in PREDICTORS[name]), layer
    counts = {'YOLOv5': 3, 'YOLOv8': 6, 'YOLOX': 9, 'RTMDet': 6}
    counts.update({'RetinaNet': 2, 'Faster R-CNN': 4})
    assert len(outputs) == counts[name]


def test_a_transposed_convolution_is_searched(detector):
    search = detector.search(small('Mask R-CNN'), SIZE)
    report = search.mutator.report()
    assert not report.unsearched
    name = 'roi_head.mask_head.upsample'
    (layer,) = [layer for layer in report.layers if layer.name == name]
    assert layer.inputs.startswith('unit ')
    assert layer.outputs == f'unit {name}'
    detector.structures(search, SIZE, number=2)


def yolov8(deepen=0.33, widen=0.25):
    return architecture('YOLOv8', deepen_factor=deepen, widen_factor=widen)


def outputs_of(model, image):
    from dms_mmrazor.graph.demo import forward_tensors
    from dms_mmrazor.graph.outputs import flatten_tensors

    with torch.no_grad():
        return flatten_tensors(forward_tensors(model, image))


def relative(found, expected):
    """Largest difference of two lists of tensors, relative to their scale."""
    assert [a.shape for a in found] == [b.shape for b in expected]
    return max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(found, expected)
    )


def test_yolov8_n_has_71_layers_to_search_once_opened(zoo):
    """63 convs, of which 8 give two halves, and 6 predictors."""
    report = zoo.algorithm(architecture('YOLOv8'), SIZE).mutator.report()
    assert len(report.layers) == 63
    assert not report.unsearched
    halves = [n for n in report.layers if n.outputs.count('main_conv') == 2]
    assert len(halves) == 8
    units = [name for name, _ in report.units]
    assert all(f'{layer.name}' in units for layer in halves)
    predictors = [n for n in report.layers if 'unit' not in n.outputs]
    assert len(predictors) == 6
    # Those of boxes are reshaped by a number that stands in mmyolo's code.
    tied = [n for n in predictors if "the model's output" in n.outputs]
    assert len(tied) == 3
    assert len(report.layers) + len(halves) - len(predictors) >= 65


def test_macs_of_stock_yolov8_n():
    from dms_mmrazor.graph import count_macs
    from dms_mmrazor.registry import MODELS

    cfg = get_config(CONFIGS['YOLOv8']).model
    model = MODELS.build(ConfigDict(cfg, _scope_='mmyolo'))
    assert 4.3e9 <= count_macs(model, (1, 3, 640, 640)) <= 4.4e9
    assert sum(p.numel() for p in model.parameters()) == 3157184


@pytest.mark.parametrize('letter', ['s', 'm', 'l'])
def test_larger_yolov8(detector, letter):
    """Their depth and their ratios of widths, at an eighth of the width."""
    path = CONFIGS['YOLOv8'].replace('yolov8_n', f'yolov8_{letter}')
    cfg = replaced(
        ConfigDict(get_config(path).model, _scope_='mmyolo'),
        num_classes=CLASSES,
        widen_factor=0.125,
    )
    search = detector.search(cfg, SIZE)
    assert not search.mutator.report().unsearched
    blocks = {'s': [2, 2], 'm': [2, 4, 4, 2], 'l': [3, 6, 6, 3]}[letter]
    stages = search.mutator.report().stages
    assert [number for _, number in stages] == blocks
    detector.structures(search, SIZE, number=3)


@pytest.mark.parametrize('name', ['YOLOv8', 'RTMDet', 'Faster R-CNN'])
def test_a_stock_state_dict_fits_the_supernet(zoo, randomize_model, name):
    cfg = small(name)
    stock = zoo.plain(cfg)
    randomize_model(stock)
    search = zoo.algorithm(cfg, SIZE)
    missing = search.architecture.load_state_dict(
        stock.state_dict(), strict=False
    )
    assert not missing.unexpected_keys
    assert not [k for k in missing.missing_keys if 'mutable' not in k]
    image = torch.rand(2, 3, SIZE, SIZE)
    search.eval()
    search.mutator.masks.use_hard_masks()
    expected = outputs_of(stock.eval(), image)
    assert relative(outputs_of(search.architecture, image), expected) < 1e-5


def deep_yolov8(detector):
    search = detector.search(yolov8(deepen=1.0, widen=0.125), SIZE)
    stages = {s.name: s for s in search.mutator.depth_units}
    assert [s.num_blocks for s in stages.values()] == [3, 6, 6, 3]
    return search


@pytest.mark.parametrize('kept', [(0,), (0, 5), (2, 3), (1, 2, 3, 4, 5)])
def test_a_removed_block_passes_its_columns_on(detector, kept):
    from dms_mmrazor.graph import count_macs
    from dms_mmrazor.supernet.difference import max_difference

    search = deep_yolov8(detector)
    mutator = search.mutator
    stage = mutator.depth_units[1]
    index = len(mutator.units) + 1
    topk = mutator.topk
    importance = topk.split(topk.importance)[index]
    importance.copy_(torch.tensor([float(i in kept) for i in range(6)]))
    mutator.set_choices({stage.name: len(kept)})
    names = mutator.structure().stages[1].kept
    assert names == tuple(f'{stage.name}.{i}' for i in kept)
    subnet = detector.exported(search)
    layer = subnet.backbone.stage2[1]
    assert len(layer.blocks) == len(kept)
    full = search.architecture.backbone.stage2[1].final_conv.conv
    width = full.in_channels // 8
    assert layer.final_conv.conv.in_channels == width * (2 + len(kept))
    weight = layer.final_conv.conv.weight
    total = full.weight.view(len(full.weight), 8, width).sum(1)
    found = weight.view(len(weight), 2 + len(kept), width).sum(1)
    torch.testing.assert_close(found.flatten(), total.flatten())
    image = torch.rand(2, 3, SIZE, SIZE)
    assert max_difference(search.architecture, subnet, image) < 1e-5
    macs = count_macs(subnet, (1, 3, SIZE, SIZE))
    assert mutator.resource('macs') == pytest.approx(macs, rel=1e-9)


def test_the_halves_of_a_split_may_differ(detector, zoo):
    from dms_mmrazor.models.algorithms import DMSSubModel

    cfg = yolov8()
    search = detector.search(cfg, SIZE)
    name = 'backbone.stage2.1.main_conv.conv'
    search.mutator.set_choices({name: 7, f'{name}[32:64]': 20})
    subnet = detector.exported(search)
    slim = subnet.backbone.stage2[1]
    assert slim.split_sizes == (7, 20)
    assert slim.main_conv.conv.out_channels == 27
    plain = zoo.plain(cfg)
    # One block's slice and that of its input: nothing else is new.
    assert set(subnet.state_dict()) == set(plain.state_dict())
    stock = type(plain.backbone.stage2[1])
    assert isinstance(slim, stock) and type(slim) is not stock
    others = [
        layer
        for layer in subnet.modules()
        if isinstance(layer, stock) and layer is not slim
    ]
    assert len(others) == 7
    assert {type(layer) for layer in others} == {stock}
    rebuilt = DMSSubModel(copy.deepcopy(cfg), search.mutator.structure())
    rebuilt.load_state_dict(subnet.state_dict())
    image = torch.rand(1, 3, SIZE, SIZE)
    assert rebuilt.backbone.stage2[1].split_sizes == (7, 20)
    found = outputs_of(rebuilt.eval(), image)
    assert relative(found, outputs_of(subnet, image)) == 0


def test_equal_halves_stay_the_stock_layer(detector):
    search = detector.search(yolov8(), SIZE)
    name = 'backbone.stage2.1.main_conv.conv'
    search.mutator.set_choices({name: 9, f'{name}[32:64]': 9})
    layer = detector.exported(search).backbone.stage2[1]
    assert type(layer).__name__ == 'CSPLayerWithTwoConv'
    assert layer.mid_channels == 9


def test_levels_share_convs_but_not_norms(detector):
    """RTMDet: shared in the search, shared after the export."""
    from dms_mmrazor.layers import DMSConv2d

    search = detector.search(small('RTMDet'), SIZE)

    def convs(model, index):
        levels = model.bbox_head.head_module.cls_convs
        return [level[index].conv for level in levels]

    for index in (0, 1):
        first, *rest = convs(search.architecture, index)
        assert type(first) is DMSConv2d
        assert len(rest) == 2 and all(conv is first for conv in rest)
    name = 'bbox_head.head_module.cls_convs.0.0.conv'
    search.mutator.set_choices({name: 11})
    subnet = detector.exported(search)
    first, *rest = convs(subnet, 0)
    assert first.out_channels == 11
    assert all(conv is first for conv in rest)
    norms = [level[0].bn for level in subnet.bbox_head.head_module.cls_convs]
    assert len(set(norms)) == 3
    assert [norm.num_features for norm in norms] == [11] * 3


def test_shared_heads_cost_once_for_every_level(zoo):
    search = zoo.algorithm(small('RetinaNet'), 128)
    costs = search.mutator.table.model('macs').by_layer(
        search.mutator.masks.hard_kept().double(),
        search.mutator.masks.hard_blocks().double(),
    )
    # levels of 16, 8, 4, 2 and 1 positions a side
    positions = 256 + 64 + 16 + 4 + 1
    assert costs['bbox_head.cls_convs.0.conv'] == 32 * 32 * 9 * positions


def test_the_second_stage_sees_flattened_regions(detector):
    search = detector.search(small('Faster R-CNN'), SIZE)
    mutator = search.mutator
    unit = next(
        unit
        for unit in mutator.units
        if any(
            str(c.name) == 'roi_head.bbox_head.shared_fcs.0'
            for c in unit.input_related
        )
    )
    assert unit.num_channels == 32
    mutator.set_choices({unit.name: 5})
    kept = next(
        u.kept for u in mutator.structure().units if u.name == unit.name
    )
    subnet = detector.exported(search)
    assert subnet.roi_head.bbox_roi_extractor.out_channels == 5
    linear = subnet.roi_head.bbox_head.shared_fcs[0]
    assert linear.in_features == 5 * 49
    full = search.architecture.roi_head.bbox_head.shared_fcs[0]
    columns = full.weight.view(-1, 32, 49)[:, list(kept)].flatten(1)
    torch.testing.assert_close(linear.weight, columns)


def yolo_subnet(detector, tmp_path):
    """Export a random structure; config and files of a plain detector."""
    from dms_mmrazor.search.export import export_subnet, save_subnet

    cfg = architecture('YOLOv8')
    search = detector.search(cfg, SIZE)
    detector.randomize_structure(search.mutator, 3)
    subnet = export_subnet(search, divisor=1)
    meta = dict(classes=('red', 'white', 'platelet'))
    files = save_subnet(subnet, str(tmp_path), meta)
    config = get_config(CONFIGS['YOLOv8'])
    config.model = dict(
        type='mmrazor.DMSSubModel',
        architecture=cfg,
        structure=files['structure'],
    )
    return subnet, config, files


def test_inferencers_accept_the_exported_detector(detector, tmp_path):
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    subnet, config, files = yolo_subnet(detector, tmp_path)
    assert subnet.difference < 1e-5
    image = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    inferencer = DetInferencer(
        model=config,
        weights=files['weights'],
        device='cpu',
        scope='mmyolo',
        palette='random',
        show_progress=False,
    )
    plain = inferencer.model
    assert type(plain).__name__ == 'YOLODetector'
    assert plain.dataset_meta['classes'] == ('red', 'white', 'platelet')
    tensors = torch.rand(1, 3, SIZE, SIZE)
    found = outputs_of(plain, tensors)
    assert relative(found, outputs_of(subnet.model.eval(), tensors)) == 0
    (prediction,) = inferencer(image, no_save_vis=True)['predictions']
    assert prediction['scores'] and len(prediction['bboxes'][0]) == 4
    model = init_detector(
        config,
        files['weights'],
        palette='random',
        device='cpu',
        cfg_options={},
    )
    sample = inference_detector(model, image)
    assert sample.pred_instances.scores.tolist() == pytest.approx(
        prediction['scores'], rel=1e-4
    )


def test_onnx_runtime_gives_the_same_boxes_and_scores(detector, tmp_path):
    from dms_mmrazor.subnet.onnx_export import export_onnx

    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    subnet, _, _ = yolo_subnet(detector, tmp_path)
    path = tmp_path / 'subnet.onnx'
    difference = export_onnx(subnet.model, (1, 3, SIZE, SIZE), str(path))
    assert difference < 1e-3
    assert path.stat().st_size > 10000


def test_two_stages_are_not_one_onnx_file(zoo, tmp_path):
    from dms_mmrazor.errors import DMSError
    from dms_mmrazor.subnet.onnx_export import export_onnx

    model = zoo.plain(small('Faster R-CNN'))
    path = tmp_path / 'subnet.onnx'
    with pytest.raises(DMSError, match='mmdeploy'):
        export_onnx(model, (1, 3, SIZE, SIZE), str(path))
    assert not path.exists()
