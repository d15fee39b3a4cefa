import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking import trainings
from dms_mmrazor.ranking.trainings import (
    DivergedError,
    Meter,
    PlainRecipe,
    losses_on_line,
    trained_state,
)

CPU = torch.device('cpu')


def batches(number=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 16, 8, generator=generator)
    return [(x, (x[:, 0] > 0).long()) for x in images]


def net(width=8):
    return nn.Sequential(
        nn.Linear(8, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, 2),
    )


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def accuracy(model):
    model.eval()
    data = batches()
    right = [(model(x).argmax(1) == y).float().mean() for x, y in data]
    return float(sum(right) / len(right))


def recipe(**kwargs):
    settings = dict(
        loader=batches(),
        loss=loss_of,
        optimizer=lambda m: torch.optim.SGD(m.parameters(), 0.1),
        epochs=3,
        evaluate=accuracy,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR,
    )
    return PlainRecipe(**{**settings, **kwargs})


def test_a_training_leaves_losses_seconds_and_a_landscape():
    found = recipe()(net, 0)
    assert len(found.losses) == len(found.seconds) == 12
    assert sum(found.losses[6:]) < sum(found.losses[:6])
    assert len(found.landscape) == 11 and min(found.landscape) > 0
    assert found.accuracy > 0.6 and not found.diverged
    assert set(found.costs) == {'training', 'landscape', 'evaluation'}
    again = recipe()(net, 0)
    assert again.losses == found.losses
    assert again.landscape == found.landscape
    assert recipe()(net, 1).losses != found.losses


def test_what_is_left_out_is_not_measured():
    found = recipe(landscape_batches=0, evaluate=None, epochs=0.5)(net, 0)
    assert not found.landscape and found.accuracy is None
    assert len(found.losses) == 3  # three iterations, no more periods
    with pytest.raises(DMSError, match='no iteration'):
        recipe(epochs=0.01)(net, 0)
    with pytest.raises(DMSError, match='length'):
        recipe(loader=iter(batches()))


def test_a_training_that_diverges_stops_and_says_why():
    wild = recipe(optimizer=lambda m: torch.optim.SGD(m.parameters(), 1e9))
    found = wild(lambda: nn.Linear(8, 2), 0)
    assert 'loss' in found.diverged and found.accuracy is None


def test_periods_are_means_over_iterations():
    meter = Meter(4, 1, CPU)
    for value in (4.0, 2.0, 1.0, 1.0):
        meter.add(torch.tensor(value))
    assert meter.losses == [4, 2, 1, 1]
    meter = Meter(24, 12, CPU)
    for value in range(24):
        meter.add(torch.tensor(float(value % 2 + 1)))
    assert meter.losses == [1.5] * 12
    meter = Meter(2, 1, CPU)
    meter.add(torch.tensor(1.0))
    with pytest.raises(DivergedError, match='100%'):
        meter.add(torch.tensor(math.nan))


def test_losses_between_two_points_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    start = trained_state(model)
    nn.init.constant_(model.weight, 1.0)
    losses = losses_on_line(model, start, lambda m: (m.weight - 1) ** 2, 4)
    assert losses == pytest.approx([1, 0.5625, 0.25, 0.0625, 0])
    assert float(model.weight) == 1


def test_the_model_stays_as_it_was_trained():
    torch.manual_seed(0)
    model = net().eval()
    start = trained_state(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    batch = batches(1)[0]
    losses_on_line(model, start, lambda m: loss_of(m, batch))
    assert not model.training
    assert torch.equal(random, torch.get_rng_state())
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_mean_loss_of_batches():
    model = nn.Linear(1, 1)
    value = trainings.mean_loss(
        model, [1.0, 3.0], lambda m, b: torch.tensor(b)
    )
    assert float(value) == 2
