from types import SimpleNamespace

import torch
from torch import nn

from dms_mmrazor.models.tracing.two_stage import (
    demo_regions,
    is_two_stage,
    with_tensor_forward,
)


def test_regions_lie_in_the_image_and_have_all_sizes():
    model = nn.Linear(1, 1)
    model.with_rpn = True
    model.rpn_head = SimpleNamespace(test_cfg=dict(max_per_img=200))
    first, second = demo_regions(model, (2, 3, 64, 96))
    assert torch.equal(first.bboxes, second.bboxes)
    boxes = first.bboxes
    assert boxes.shape == (200, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 96).all() and (boxes[:, 3] <= 64).all()
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (sizes >= 7.99).all()
    assert sizes.min() < 10 and sizes[:, 0].max() > 80
    again = demo_regions(model, (2, 3, 64, 96))[0].bboxes
    assert torch.equal(again, boxes)


def test_without_a_first_stage_there_are_as_many_as_usual():
    model = nn.Linear(1, 1)
    model.with_rpn = False
    assert len(demo_regions(model, (1, 3, 32, 32))[0]) == 1000


def test_other_models_stay_as_they_are():
    model = nn.Conv2d(3, 4, 1)
    assert not is_two_stage(model)
    assert with_tensor_forward(model, (1, 3, 8, 8)) is model
    assert type(model) is nn.Conv2d
