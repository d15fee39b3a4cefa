"""A searched model learns from a frozen teacher."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dms_mmrazor import DMSError, Search
from dms_mmrazor.search.distillation import distillation_loss

STEPS = 6


class Network(nn.Module):
    """Two layers and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 16, 3, 2)
        self.norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 16, 3, 2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.two(self.norm(self.one(x)).relu()).relu()
        return self.fc(x.mean((2, 3)))


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 3, 15, 15, generator=generator)


def search_of(model, **distill):
    return Search(model, images(), {'params': 0.6}, STEPS, distill=distill)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_loss_is_the_divergence(temperature):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 7, generator=generator)
    student.requires_grad_()
    loss = distillation_loss(student, teacher, temperature)
    p = (teacher / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    where = torch.tensor([True, False, True, False, False, False])
    torch.testing.assert_close(
        distillation_loss(student, teacher, temperature, where),
        distillation_loss(student[where], teacher[where], temperature),
    )
    assert distillation_loss(teacher, teacher, temperature) < 1e-6


def test_frozen_weights_are_their_own_teacher():
    model = Network().requires_grad_(False)
    start = copy.deepcopy(model).eval()
    search = search_of(model, temperature=2.0)
    assert search.teacher is None
    ratios = search.mutator.topk.pruning_ratio.detach().clone()
    statistics = model.norm.running_mean.clone()
    for seed in range(STEPS):
        x = images(seed)
        model.train()
        output, loss = search.distill(x)
        expected = distillation_loss(output, start(x), 2.0)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        search.step()
    assert not torch.equal(ratios, search.mutator.topk.pruning_ratio)
    # The pass of the student alone moves the statistics.
    assert not torch.equal(statistics, model.norm.running_mean)
    assert model.training


def test_trained_weights_have_a_copy_of_the_start():
    model = Network()
    start = copy.deepcopy(model).eval()
    search = search_of(model, hidden='two', hidden_weight=0.5)
    assert not any(p.requires_grad for p in search.teacher.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for seed in range(2):
        x = images(seed)
        output, loss = search.distill(x)
        assert search.teacher.eval()(x).equal(start(x))
        (loss + F.cross_entropy(output, torch.arange(4))).backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    assert not model.fc.weight.equal(start.fc.weight)


def test_state_of_a_model_has_no_teacher():
    search = search_of(Network())
    assert not any('teacher' in key for key in search.model.state_dict())
    assert not any('teacher' in key for key in search.state_dict())


@pytest.mark.parametrize('frozen', [False, True])
def test_a_resumed_loop_keeps_its_teacher(frozen):
    model = Network().requires_grad_(not frozen)
    start = copy.deepcopy(model)
    search = search_of(model)
    model.train()
    optimizer = torch.optim.SGD(Network().parameters(), lr=0.5)
    if not frozen:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for seed in range(2):
        search.distill(images(seed))[1].backward()
        optimizer.step()
        search.step()
    weights, state = model.state_dict(), search.state_dict()
    weights = {k: v.clone() for k, v in weights.items()}
    expected = search.distill(images(2))[1]
    plain = {k: weights[k] for k in start.state_dict()}
    # Made of the weights of that moment, it would be taught by these.
    moved = copy.deepcopy(start)
    moved.load_state_dict(plain)
    with pytest.raises(DMSError, match='weights of the start'):
        search_of(moved).load_state_dict(state)
    again = copy.deepcopy(start)
    resumed = search_of(again)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    loss = resumed.distill(images(2))[1]
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    'settings, key',
    [
        (dict(heat=1), 'distill.heat'),
        (dict(temperature=0), 'distill.temperature'),
        (dict(weight='1'), 'distill.weight'),
        (dict(logits='head'), 'distill.logits'),
        (dict(teacher='folder'), r'distill.teacher. must be a model'),
        (dict(teacher=dict(type='ResNet')), r'distill.teacher. must be a'),
        (dict(hidden='one', teacher=nn.Sequential()), 'distill.logits'),
    ],
)
def test_wrong_settings(settings, key):
    with pytest.raises(DMSError, match=key):
        search_of(Network(), **settings)


def test_another_model_that_cannot_be_compared():
    teacher = Network()
    teacher.first, teacher.one = teacher.one, nn.Identity()
    del teacher.two
    with pytest.raises(DMSError, match=r"distill.hidden. names 'two'"):
        search_of(Network(), teacher=teacher, hidden='two')
    for key, layer in (('fc', nn.Linear(16, 7)), ('two', nn.Conv2d(16, 8, 3))):
        teacher = Network()
        setattr(teacher, key, layer)
        if key == 'two':
            teacher.fc = nn.Linear(8, 5)
        search = search_of(Network(), teacher=teacher, hidden='two')
        with pytest.raises(DMSError, match=f'{key}. gives .* in the teacher'):
            search.distill(images())


def test_without_a_teacher():
    search = Search(Network(), images(), 0.5, STEPS)
    with pytest.raises(DMSError, match='distill=dict'):
        search.distill(images())
