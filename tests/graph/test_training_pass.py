"""Layers that only the loss runs, and models that only a run can trace."""

import pytest
import torch
from mmengine.model import BaseModel
from mmpretrain.models import ImageClassifier
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.graph.running import check_demo_input


def cbr(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Segmentor(BaseModel):
    """An encoder and a decoder; only the loss asks auxiliary heads."""

    def __init__(self, needs_samples=False, heads=(16, 12)):
        super().__init__()
        self.a, self.b, self.c = cbr(3, 16), cbr(16, 12), cbr(12, 10)
        self.decode = nn.Conv2d(10, 4, 1)
        self.auxiliary = nn.ModuleList(
            nn.Sequential(cbr(width, 8), nn.Conv2d(8, 4, 1)) for width in heads
        )
        self.needs_samples = needs_samples

    def forward(self, inputs, data_samples=None, mode='tensor'):
        a = self.a(inputs)
        b = self.b(a)
        logits = [self.decode(self.c(b))]
        if mode == 'loss':
            if self.needs_samples:
                raise ValueError(f'no truth in {data_samples}')
            # A function between a layer and its reader, as in real heads.
            for head, x in zip(self.auxiliary, (a, b)):
                logits.append(head(nn.functional.avg_pool2d(x, 2)))
            return dict(loss=sum(y.square().mean() for y in logits))
        return logits[0]


def groups_of(model, size=(1, 3, 8, 8)):
    analyzer = DMSChannelAnalyzer(demo_input=size)
    return {g.name: g for g in analyzer.analyze_groups(model)}


def test_auxiliary_heads_are_followed():
    groups = groups_of(Segmentor())
    assert not groups['a.0'].reason and not groups['b.0'].reason
    assert ('auxiliary.0.0.0', False) in groups['a.0'].layers
    assert ('auxiliary.1.0.0', False) in groups['b.0'].layers
    assert 'training' in groups['auxiliary.0.0.0'].reason


class Distilled(Segmentor):
    """Its loss compares two features of as many channels, some way."""

    def __init__(self, compare):
        super().__init__(heads=())
        self.b, self.c = cbr(16, 16), cbr(16, 10)
        self.compare = compare

    def forward(self, inputs, data_samples=None, mode='tensor'):
        a = self.a(inputs)
        b = self.b(a)
        y = self.decode(self.c(b))
        if mode == 'loss':
            near = self.compare(a, b.detach())
            return dict(loss=y.square().mean(), loss_near=near)
        return y


@pytest.mark.parametrize(
    'compare',
    [
        nn.functional.mse_loss,
        lambda a, b: (a.flatten(1) - b.flatten(1)).abs().mean(),
        lambda a, b: nn.functional.cosine_similarity(a, b).mean(),
    ],
)
def test_features_that_a_loss_compares_are_held(compare):
    groups = groups_of(Distilled(compare))
    for name in ('a.0', 'b.0'):
        assert 'only in training reads its channels' in groups[name].reason
    assert not groups['c.0'].reason


@pytest.mark.parametrize(
    'compare',
    [
        # Each is one number for an image, or for two of them.
        lambda a, b: (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).abs().mean(),
        lambda a, b: (a.flatten(1) @ a.flatten(1).T).mean() + b.mean(),
    ],
)
def test_losses_of_whole_features_hold_nothing(compare):
    groups = groups_of(Distilled(compare))
    assert not any(groups[name].reason for name in ('a.0', 'b.0', 'c.0'))


def test_without_a_training_pass_what_fits_is_held():
    groups = groups_of(Segmentor(needs_samples=True))
    for name, head in (('a.0', '0'), ('b.0', '1')):
        assert f'auxiliary.{head}' in groups[name].reason
    assert not groups['c.0'].reason


def test_what_fits_nothing_may_read_a_part_of_everything():
    groups = groups_of(Segmentor(needs_samples=True, heads=(28,)))
    assert all(groups[name].reason for name in ('a.0', 'b.0', 'c.0'))


class Deciding(nn.Module):
    """The layers that run are chosen by values."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.bright, self.dark = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = self.b(self.a(x))
        return self.bright(x) if x.mean() > -9 else self.dark(x)


def test_what_another_decision_reads_is_held():
    groups = groups_of(Deciding())
    assert not groups['a'].reason
    assert 'dark' in groups['b'].reason


class Writing(nn.Module):
    """Writes channels of a layer into a part of another tensor."""

    def __init__(self, part):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c, self.part = nn.Conv2d(8, 4, 1), part

    def forward(self, x):
        x = self.a(x)
        y = torch.zeros_like(x)
        y[self.part] = self.b(x)[self.part]
        return self.c(y)


@pytest.mark.parametrize(
    'part, held',
    [
        ((slice(None), slice(None), slice(0, None, 2)), False),
        ((slice(None), slice(0, 4)), True),
    ],
)
def test_written_slices(part, held):
    groups = groups_of(Writing(part))
    given = [g for g in groups.values() if ('b', True) in g.layers]
    assert given and all(bool(group.reason) == held for group in given)


def test_a_model_that_needs_data_samples_is_told_apart():
    class NeedsSamples(ImageClassifier):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            assert data_samples is not None
            return super().forward(inputs, data_samples, mode)

    model = NeedsSamples(dict(type='mmpretrain.LeNet5'))
    with pytest.raises(DMSError, match='data samples'):
        check_demo_input(model, (1, 1, 32, 32))
    with pytest.raises(DMSError, match='shape'):
        check_demo_input(nn.Conv2d(3, 4, 1), (1, 1, 32, 32))
