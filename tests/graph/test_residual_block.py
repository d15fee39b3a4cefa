import pytest
import torch
from torch import nn

from dms_mmrazor.graph.block_run import BlockRun
from dms_mmrazor.graph.residual_block import KnownBlocks


class Block(nn.Module):
    """x + f(x), or something else with the same modules."""

    def __init__(self, form='residual'):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.form = form
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        y = self.norm(self.conv(x))
        if self.form == 'plain':
            return y
        if self.form == 'twice':
            return x + self.norm(y)
        if self.form == 'other end':
            return x + self.conv(self.norm(x))
        return x if self.form == 'nothing' else x + y


def run_of(form='residual'):
    block = Block(form).eval()
    x = torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        return BlockRun(block, x, block(x))


@torch.no_grad()
def find(known, run):
    before = run.block.calls
    return known.find('stage.1', run), run.block.calls - before


def test_a_block_of_a_known_kind_takes_one_run():
    known = KnownBlocks()
    first, runs = find(known, run_of())
    assert runs > 2 and first.carrier == 'stage.1.norm' and first.folds
    second, runs = find(known, run_of())
    assert second == first and runs == 1


@pytest.mark.parametrize('form', ['plain', 'nothing', 'twice', 'other end'])
def test_another_form_with_the_same_modules_is_not_taken_for_it(form):
    known = KnownBlocks()
    find(known, run_of())
    found, _ = find(known, run_of(form))
    alone, _ = find(KnownBlocks(), run_of(form))
    assert found == alone


class Reshape(nn.Module):
    def forward(self, y, x):
        return y.reshape(x.shape)


class Windows(nn.Module):
    """x + f(x), of which f works on windows of four tokens, filled up."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 3)
        self.merge = Reshape()

    def forward(self, x):
        missing = -x.shape[1] % 4
        y = self.proj(nn.functional.pad(x, (0, 0, 0, missing)))
        return x + self.merge(y[:, : x.shape[1]], x)


@torch.no_grad()
def test_where_nothing_folds_another_shape_is_looked_at_anew():
    known = KnownBlocks()
    for shape, carrier in (((2, 6, 3), 'merge'), ((2, 4, 3), 'proj')):
        block, x = Windows(), torch.rand(shape)
        found = known.find('stage.1', BlockRun(block, x, block(x)))
        assert found.carrier == f'stage.1.{carrier}'
        assert found.folds is (carrier == 'proj')
