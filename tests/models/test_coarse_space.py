"""Coarse search spaces: several channels are one element."""

import pytest
import torch

STEP = 32


@pytest.fixture
def search(family, zoo):
    """Two optimizer steps of a search in steps of 32 channels."""
    cfg = dict(type='DMSChannelUnit', default_args=dict(step=STEP))
    search = zoo.algorithm(
        zoo.resnet(18, num_classes=10),
        64,
        mutator=dict(channel_unit_cfg=cfg, depth_unit_cfg=None),
    )
    family.trains(search, 64)
    return search


@pytest.mark.parametrize('ratio', [0.0, 0.3, 0.55, 0.9])
def test_elements_of_a_step_share_importance_and_mask(search, ratio):
    mutator, topk = search.mutator, search.mutator.topk
    topk.pruning_ratio.data.fill_(ratio)
    topk.project_()
    assert topk.num_updates == 2
    assert all(unit.num_channels % STEP == 0 for unit in mutator.units)
    channels = sum(unit.num_channels for unit in mutator.units)
    assert len(topk.importance) == channels // STEP
    for values in (topk.soft_mask(), topk.hard_mask()):
        for part in topk.split(values):
            steps = part.detach().view(-1, STEP).float()
            assert torch.equal(steps, steps[:, :1].expand_as(steps))
    assert ratio == 0.0 or 0 < float(topk.soft_mask().min()) < 0.5
    for unit in mutator.structure().units:
        assert len(unit.kept) >= STEP and len(unit.kept) % STEP == 0


def test_exported_widths(search, family):
    mutator = search.mutator
    mutator.topk.pruning_ratio.data.fill_(0.5)
    mutator.topk.project_()
    subnet = family.exported(search)
    convs = [m for m in subnet.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {conv.out_channels % STEP for conv in convs} == {0}
    assert all(conv.in_channels % STEP == 0 for conv in convs[1:])
    assert subnet.backbone.layer4[1].conv1.out_channels == 256
