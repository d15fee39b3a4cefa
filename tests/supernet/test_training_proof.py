"""What a plain model does in training alone is proven, too."""

import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dms_mmrazor import DMSError, Search
from dms_mmrazor.graph.training_run import training


def _conv(read, given):
    return nn.Conv2d(read, given, 3, padding=1)


class Net(nn.Module):
    """Three convolutions, and what is done in training between them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.one, self.two = _conv(3, 16), _conv(16, 16)
        self.head = _conv(16, 4)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def centered():
    def forward(net, x):
        x = net.one(x).relu()
        if net.training:
            x = x - x.mean(1, keepdim=True)
        return net.head(net.two(x).relu())

    return Net(forward)


def scaled():
    def forward(net, x):
        x = net.one(x).relu()
        x = x * net.scale if net.training else x
        return net.head(net.two(x).relu())

    return Net(forward, scale=nn.Parameter(torch.ones(16, 1, 1)))


def branched():
    def forward(net, x):
        x = net.one(x).relu()
        return net.head((net.other if net.training else net.two)(x).relu())

    return Net(forward, other=_conv(16, 16))


def supervised():
    def forward(net, x):
        first = net.one(x).relu()
        out = net.head(net.three(net.two(first).relu()).relu())
        return (out, net.head(first)) if net.training else out

    return Net(forward, three=_conv(16, 16))


def shown():
    def forward(net, x):
        x = net.two(net.one(x).relu()).relu()
        out = net.head(x)
        return (out, x.mean((2, 3))) if net.training else out

    return Net(forward)


def clustered():
    def forward(net, x):
        x = net.two(net.one(x).relu()).relu()
        out = net.head(x)
        if not net.training:
            return out
        centers = net.centers(torch.zeros(len(x), dtype=torch.long))
        return out.mean() + F.mse_loss(x.mean((2, 3)), centers)

    return Net(forward, centers=nn.Embedding(4, 16))


class Residual(nn.Module):
    """A block that can be removed."""

    def __init__(self):
        super().__init__()
        self.conv = _conv(16, 16)

    def forward(self, x):
        return x + self.conv(x).relu()


def numbered():
    def forward(net, x):
        x = net.one(x)
        for index, block in enumerate(net.blocks):
            x = block(x) * (1 + index if net.training else 1)
        return net.head(net.two(x).relu())

    return Net(forward, blocks=nn.ModuleList(Residual() for _ in range(4)))


def _train(model, search=None, steps=2):
    for _ in range(steps):
        out = model.train()(torch.rand(2, 3, 8, 8))
        out = out if isinstance(out, tuple) else (out,)
        sum(part.square().mean() for part in out).backward()
        if search is not None:
            search.step()


@pytest.mark.parametrize(
    'make',
    [centered, scaled, branched, supervised, shown, clustered, numbered],
)
def test_what_training_alone_ties_is_named_and_the_advice_works(make):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(DMSError, match=r'in training.*mutator\.exclude=') as e:
        Search(make(), x, {'macs': 0.8}, total_steps=2)
    (names,) = re.findall(r'`mutator\.exclude=\[(.*?)\]`', str(e.value))
    exclude = re.findall(r"'(.*?)'", names)
    settings = dict(exclude=exclude)
    search = Search(make(), x, {'macs': 0.8}, 2, mutator=settings)
    _train(search.model, search)
    subnet = search.export(divisor=1)
    assert subnet.difference < 1e-5
    assert subnet.structure.resources['params']['ratio'] < 1
    _train(subnet.model)


def ordinary():
    def forward(net, x):
        x = net.norm(net.one(x)).relu()
        order = torch.randperm(len(x)) if net.training else range(len(x))
        net.count += 1
        net.seen.append(len(x))
        return net.head(net.drop(net.two(x[order])).relu())

    net = Net(forward, norm=nn.BatchNorm2d(16), drop=nn.Dropout2d(0.5))
    net.count, net.seen = 0, []
    return net


def test_random_numbers_and_statistics_are_no_difference():
    torch.manual_seed(0)
    net, x = ordinary(), torch.rand(4, 3, 8, 8)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    numbers = torch.get_rng_state()
    search = Search(net, x, {'macs': 0.5}, total_steps=2)
    assert len(search.mutator.searched_units) == 2
    assert torch.equal(torch.get_rng_state(), numbers)
    after = net.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_pass_in_training_leaves_no_trace():
    net, x = ordinary(), torch.rand(4, 3, 8, 8)
    net.eval()
    net.seen.append('before')
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with training(net):
        assert net.norm.training
        net(x)
        assert net.count == 1
    assert net.count == 0
    assert net.seen == ['before']
    assert not any(module.training for module in net.modules())
    after = net.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
