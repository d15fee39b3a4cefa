"""Detectors of torchvision: what comes before boxes are chosen is searched."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

retinanet = pytest.importorskip(
    'torchvision.models.detection.retinanet',
    reason='torchvision has no RetinaNet',
)
from torchvision.models.detection import FasterRCNN  # noqa: E402
from torchvision.models.detection.anchor_utils import (  # noqa: E402
    AnchorGenerator,
)

from dms_mmrazor import DMSError, Search  # noqa: E402
from dms_mmrazor.graph import DMSChannelAnalyzer  # noqa: E402

SIDE = 32


def _backbone():
    backbone = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, 2, 1),
    )
    backbone.out_channels = 8
    return backbone


def _detector(kind=retinanet.RetinaNet, **options):
    torch.manual_seed(0)
    anchors = AnchorGenerator(((8, 16),), ((1.0,),))
    options.update(min_size=SIDE, max_size=SIDE, num_classes=3)
    name = 'anchor_generator'
    if kind is FasterRCNN:
        name = 'rpn_anchor_generator'
    return kind(_backbone(), **{name: anchors}, **options)


def _targets():
    boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]])
    return [dict(boxes=boxes, labels=torch.ones(1, dtype=torch.long))]


@pytest.mark.parametrize(
    'example',
    [
        torch.rand(1, 3, SIDE, SIDE),
        [torch.rand(3, SIDE, SIDE)],
        ([torch.rand(3, SIDE, SIDE)],),
    ],
    ids=['batch', 'images', 'arguments'],
)
def test_a_detector_is_searched_and_detects(example):
    search = Search(_detector(), example, 0.5, 2)
    assert not search.mutator.report().unsearched
    optimizer = torch.optim.SGD(search.model.parameters(), lr=1e-3)
    for _ in range(2):
        losses = search.model.train()([torch.rand(3, SIDE, SIDE)], _targets())
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    images = [torch.rand(3, SIDE, SIDE)]
    (found,) = subnet.model.eval()(images)
    assert set(found) == {'boxes', 'labels', 'scores'}
    losses = subnet.model.train()(images, _targets())
    sum(losses.values()).backward()


def test_what_is_no_image_is_told():
    with pytest.raises(DMSError, match='must be a list of images'):
        Search(_detector(), dict(images=1), 0.5, 2)


def test_the_advice_for_two_stages_works():
    detector = _detector(FasterRCNN)
    with pytest.raises(DMSError, match=r'Search\(model.backbone'):
        Search(detector, [torch.rand(3, SIDE, SIDE)], 0.5, 2)
    images = torch.rand(1, 3, SIDE, SIDE)
    search = Search(detector.backbone, images, 0.7, 2)
    for _ in range(2):
        losses = detector.train()([images[0]], _targets())
        sum(losses.values()).backward()
        search.step()
    subnet = search.export(divisor=1)
    detector.backbone = subnet.model
    detector.eval()([images[0]])


class Normalized(nn.Module):
    """Features divided by their norm over the channels, as in SSD."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.inner = nn.Conv2d(6, 5, 1)
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.last(self.inner(F.normalize(self.first(x))))


def test_a_norm_over_all_channels_is_a_reason():
    groups = DMSChannelAnalyzer((1, 3, 8, 8)).analyze_groups(Normalized())
    reasons = {group.name: group.reason for group in groups}
    assert 'divides by the norm of all channels' in reasons['first']
    assert not reasons['inner']
