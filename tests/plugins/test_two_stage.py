import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import (
    forward_tensors,
    with_tensor_forward,
)
from dms_mmrazor.graph.model_kind import model_kind_of
from dms_mmrazor.plugins.mmdet import TwoStageKind, demo_regions


@pytest.fixture
def faster_rcnn(zoo):
    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.init_cfg = None
    cfg.test_cfg.rpn.max_per_img = 200
    return zoo.plain(ConfigDict(cfg, _scope_='mmdet'))


def test_regions_lie_in_the_image_and_have_all_sizes(faster_rcnn):
    first, second = demo_regions(faster_rcnn, (2, 3, 64, 96))
    assert torch.equal(first.bboxes, second.bboxes)
    boxes = first.bboxes
    assert boxes.shape == (200, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 96).all() and (boxes[:, 3] <= 64).all()
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (sizes >= 7.99).all()
    assert sizes.min() < 10 and sizes[:, 0].max() > 80
    again = demo_regions(faster_rcnn, (2, 3, 64, 96))[0].bboxes
    assert torch.equal(again, boxes)


def test_without_a_first_stage_there_are_as_many_as_usual(faster_rcnn):
    faster_rcnn.rpn_head = None
    assert len(demo_regions(faster_rcnn, (1, 3, 32, 32))[0]) == 1000


def test_few_regions_where_their_number_does_not_matter(faster_rcnn):
    image = torch.rand(2, 3, 64, 64)
    faster_rcnn.eval()
    for few, number in ((True, 64), (False, 200)):
        with torch.no_grad():
            *_, (classes, _) = forward_tensors(faster_rcnn, image, few)
        assert len(classes) == 2 * number
    assert len(demo_regions(faster_rcnn, (1, 3, 64, 64), few=True)[0]) == 64


def test_forward_gives_both_stages(faster_rcnn):
    assert isinstance(model_kind_of(faster_rcnn), TwoStageKind)
    model = with_tensor_forward(faster_rcnn.eval(), (1, 3, 64, 64))
    assert type(model).__name__ == 'FasterRCNN'
    with torch.no_grad():
        scores, deltas, (classes, boxes) = model(torch.rand(1, 3, 64, 64))
    assert len(scores) == len(deltas) == 5
    assert classes.shape == (200, 81) and boxes.shape == (200, 320)


@pytest.mark.parametrize(
    'name, outputs',
    [
        ('htc/htc_r50_fpn_1x_coco.py', 2 + 1 + 6 + 3),
        ('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', 12),
    ],
)
def test_all_stages_of_cascades(name, outputs, zoo):
    """HTC: its semantics, boxes and masks; Sparse R-CNN: six heads."""
    cfg = get_config(f'mmdet::{name}').model
    cfg.backbone.init_cfg = None
    model = zoo.plain(ConfigDict(cfg, _scope_='mmdet')).eval()
    with torch.no_grad():
        found = forward_tensors(model, torch.rand(1, 3, 64, 64), True)
    assert len(found) == outputs


def test_a_second_stage_that_refines_regions_is_refused(faster_rcnn):
    faster_rcnn.roi_head = nn.Identity()
    with pytest.raises(DMSError, match='roi_head.*Identity cannot'):
        with_tensor_forward(faster_rcnn, (1, 3, 64, 64))


def test_other_models_stay_as_they_are():
    model = nn.Conv2d(3, 4, 1)
    assert not isinstance(model_kind_of(model), TwoStageKind)
    assert with_tensor_forward(model, (1, 3, 8, 8)) is model
    assert type(model) is nn.Conv2d
