"""Which layer norms one linear layer alone reads."""

import pytest
from torch import fx, nn

from dms_mmrazor.graph.channel_analyzer import find_norm_readers


class Block(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Leaves(nn.Module):
    """The norm is inside a block, its reader outside."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.block(x))


KEPT = {
    'two readers': lambda b, x: b.linear(b.norm(x)) + b.other(b.norm(x)),
    'one call, two readers': lambda b, x: (lambda y: b.linear(y) + b.other(y))(
        b.norm(x)
    ),
    'a residual': lambda b, x: (lambda y: y + b.linear(y))(b.norm(x)),
    'something between': lambda b, x: b.linear(b.norm(x).relu()),
    'a layer called twice': lambda b, x: b.linear(b.linear(b.norm(x))),
    'the output': lambda b, x: b.norm(b.linear(x)),
}


def readers(model):
    return find_norm_readers(fx.symbolic_trace(model).graph, model)


def test_the_only_reader_is_found():
    model = nn.Sequential(
        Block(lambda b, x: x + b.linear(b.norm(x))), Leaves()
    )
    assert readers(model) == {'0.norm': '0.linear'}


@pytest.mark.parametrize('case', list(KEPT))
def test_others_read_the_norm_itself(case):
    assert readers(Block(KEPT[case])) == {}
