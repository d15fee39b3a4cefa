"""What a loop of one's own may do besides: compile, clip, average, scale."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dms_mmrazor import Search

STEPS = 10
SIZE = (2, 3, 12, 12)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.two(self.norm(self.one(x)).relu())


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.Sequential(Block(16), Block(16), Block(16)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images = torch.rand(8, *SIZE[1:], generator=generator)
        yield images, torch.randint(4, (8,), generator=generator)


def _loop(
    wrap=lambda search: search.model, after=lambda search: None, steps=STEPS
):
    """A search whose model is called in another way."""
    torch.manual_seed(0)
    search = Search(network(), torch.rand(SIZE), 0.5, STEPS)
    model = wrap(search)
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.05)
    losses = []
    for _, (images, labels) in zip(range(steps), batches()):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        after(search)
        optimizer.step()
        optimizer.zero_grad()
        search.step()
        losses.append(loss.item())
    return search, losses


@pytest.mark.skipif(
    not hasattr(torch, 'compile'), reason='torch.compile came with torch 2'
)
@pytest.mark.timeout(300)
def test_a_compiled_model_searches_the_same():
    from torch._dynamo import reset

    reset()
    plain, losses = _loop(steps=4)
    compiled, others = _loop(
        lambda search: torch.compile(search.model, backend='eager'), steps=4
    )
    assert others == pytest.approx(losses, rel=1e-4)
    ratios = [s.mutator.topk.pruning_ratio for s in (plain, compiled)]
    torch.testing.assert_close(*ratios, rtol=1e-3, atol=1e-4)
    assert compiled.export(divisor=1).difference <= 1e-5


def test_clipping_and_averages_leave_the_structure_alone():
    averages = []

    def after(search):
        nn.utils.clip_grad_norm_(search.model.parameters(), 1e9)
        if not averages:
            averages.append(AveragedModel(search.model))
        averages[0].update_parameters(search.model)

    plain, losses = _loop()
    other, others = _loop(after=after)
    assert losses == others
    for one, two in zip(
        plain.mutator.topk.state_dict().values(),
        other.mutator.topk.state_dict().values(),
    ):
        assert torch.equal(one, two)


def test_the_optimizer_has_the_weights_alone():
    search = Search(network(), torch.rand(SIZE), 0.5, STEPS)
    weights = {id(p) for p in search.model.parameters()}
    assert weights.isdisjoint(map(id, search.mutator.topk.parameters()))
    before = copy.deepcopy(search.model.state_dict())
    search.model(torch.rand(SIZE)).sum().backward()
    search.step()  # no optimizer has stepped
    assert all(p.grad is not None for p in search.model.parameters())
    for name, _ in search.model.named_parameters():
        assert torch.equal(before[name], search.model.state_dict()[name])


def _rank(rank, world_size):
    """A search in one of several processes."""
    calls = []
    reduce = torch.distributed.all_reduce

    def counted(*args, **kwargs):
        calls.append(1)
        return reduce(*args, **kwargs)

    torch.manual_seed(0)
    search = Search(network(), torch.rand(SIZE), 0.5, STEPS)
    model = nn.parallel.DistributedDataParallel(search.model)
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.05)
    torch.distributed.all_reduce = counted
    for images, labels in batches():
        part = slice(rank, None, world_size)
        loss = F.cross_entropy(model(images[part]), labels[part])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    state = search.mutator.topk.state_dict()
    kept = search.export(divisor=1).structure.units
    return dict(
        state={key: value.clone() for key, value in state.items()},
        kept=[len(unit.kept) for unit in kept],
        calls=len(calls),
    )


def test_ranks_keep_the_same_structure(processes):
    one, two = processes(_rank, 2)
    assert one['kept'] == two['kept']
    for key, value in one['state'].items():
        assert torch.equal(value, two['state'][key]), key
    # Beside one a step: before the depths are held.
    assert STEPS <= one['calls'] <= STEPS + 1
