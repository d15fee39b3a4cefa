import random

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.units import DMSChannelUnit


def searched(model, size=8, **init_args):
    """A mutator that has prepared a model."""
    mutator = DMSMutator(
        channel_unit_cfg=dict(type='DMSChannelUnit', default_args=init_args),
        parse_cfg=dict(demo_input=(1, 3, size, size)),
    )
    mutator.prepare_from_supernet(model)
    return mutator


def two_convs(channels=16):
    return nn.Sequential(nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 5, 1))


@pytest.mark.parametrize(
    'kwargs, low, high',
    [
        (dict(), 1, 20),
        (dict(min_ratio=0.3, max_ratio=0.7), 6, 14),
        (dict(min_ratio=0.31, max_ratio=0.69), 7, 13),
        (dict(step=4), 4, 20),
        (dict(step=4, min_ratio=0.3, max_ratio=0.7), 8, 12),
        # Steps divide the channels: 4 is the divisor of 8 and 20.
        (dict(step=8), 4, 20),
        (dict(step=20), 20, 20),
    ],
)
def test_limits(kwargs, low, high):
    unit = DMSChannelUnit(20, **kwargs)
    assert (unit.min_kept, unit.max_kept) == (low, high)
    random.seed(0)
    samples = {unit.sample_choice() for _ in range(200)}
    assert samples == set(range(low, high + 1, unit.step))


@pytest.mark.parametrize(
    'kwargs, key',
    [
        (dict(step=0), 'step'),
        (dict(step=21), 'step'),
        (dict(step=1.5), 'step'),
        (dict(min_ratio=-0.1), 'min_ratio'),
        (dict(min_ratio=0.6, max_ratio=0.5), 'min_ratio'),
        (dict(max_ratio=1.1), 'max_ratio'),
        (dict(max_ratio=0.0), 'max_ratio'),
    ],
)
def test_bad_limits(kwargs, key):
    with pytest.raises(DMSError, match=f'`{key}`') as error:
        DMSChannelUnit(20, **kwargs)
    assert '\n' not in str(error.value)


def test_bad_limits_name_the_unit():
    with pytest.raises(DMSError, match='unit 0: `step`'):
        searched(two_convs(), step=17)


def test_unbound_unit():
    unit = DMSChannelUnit(8)
    assert unit.current_choice == 8
    with pytest.raises(DMSError, match='not searched'):
        unit.current_choice = 4


@pytest.mark.parametrize('step', [2, 8])
def test_a_step_has_one_mask(step):
    mutator = searched(two_convs(), step=step)
    torch.manual_seed(0)
    mutator.topk.importance.uniform_()
    mutator.topk.num_updates.fill_(1)
    mutator.topk.pruning_ratio.data.fill_(0.4)
    soft = mutator.topk.soft_mask().detach().view(-1, step)
    assert torch.equal(soft, soft[:, :1].expand_as(soft))
    assert 16 // step == len(soft[:, 0].unique())
    for kept in range(step, 17, step):
        mutator.set_choices({'0': kept})
        hard = mutator.topk.hard_mask().view(-1, step)
        assert torch.equal(hard, hard[:, :1].expand_as(hard))
        assert hard.sum() == kept == mutator.units[0].current_choice
    with pytest.raises(DMSError, match='0: operator 0 cannot keep exactly'):
        mutator.set_choices({'0': step + 1})


@pytest.mark.parametrize('ratio', [0.0, 1.0])
def test_pruning_ratio_stays_within_the_limits(ratio):
    mutator = searched(two_convs(), min_ratio=0.25, max_ratio=0.75)
    mutator.topk.pruning_ratio.data.fill_(ratio)
    mutator.topk.project_()
    expected = 4 if ratio == 1.0 else 12
    assert mutator.current_choices == {'0': expected}
    mutator.set_choices({'0': expected})
    with pytest.raises(DMSError, match='limits 4 to 12'):
        mutator.set_choices({'0': 13 if ratio == 0.0 else 3})


def test_masks_reach_every_consumer():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 5, 1),
    ).eval()
    mutator = searched(model)
    assert [unit.num_channels for unit in mutator.units] == [4]
    mutator.topk.importance.copy_(torch.tensor([4.0, 1, 3, 2]))
    mutator.set_choices({'0': 2})
    image = torch.rand(1, 3, 8, 8)
    before = model(image)
    # Whatever pruned channels compute, it does not matter.
    with torch.no_grad():
        model[0].weight[[1, 3]] += 1
        model[1].weight[[1, 3]] += 1
        model[2].bias[[1, 3]] += 1
    assert torch.equal(model(image), before)
    with torch.no_grad():
        model[1].weight[[0, 2]] += 1
    assert not torch.equal(model(image), before)


class Flattened(nn.Module):
    """A linear layer that reads every position of a feature map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(24, 8)
        self.fc2 = nn.Linear(8, 5)

    def forward(self, image):
        image = self.pool(self.conv(image).relu()).flatten(1)
        return self.fc2(self.fc1(image).relu())


def test_flattened_positions_follow_their_channel():
    model = Flattened()
    mutator = searched(model)  # compares with an exported subnet
    assert mutator.current_choices == {'conv': 6, 'fc1': 8}
    mutator.set_choices({'conv': 2})
    mask = model.fc1.get_mutable_attr('in_channels').current_mask
    assert mask.view(6, 4).sum(1).tolist() == [4, 4, 0, 0, 0, 0]
