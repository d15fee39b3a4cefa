"""Blocks in lists that a model iterates over in its own way."""

import pytest
import torch
from torch import nn

from dms_mmrazor.models.ops.block_lists import remove_blocks
from dms_mmrazor.models.tracing import find_stages


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.conv(x)


class Model(nn.Module):
    def __init__(self, way, out_indices=None):
        super().__init__()
        self.way = way
        self.blocks = nn.ModuleList(Residual() for _ in range(4))
        self.num_layers = 4
        if out_indices is not None:
            self.out_indices = out_indices
        self.head = nn.Conv2d(16 if way == 'concatenated' else 4, 2, 1)

    def forward(self, image):
        x = torch.cat([image, image[:, :1]], dim=1)
        outs = []
        for block in self.blocks:
            outs.append(block(image if self.way == 'parallel' else x))
            x = outs[-1]
        if self.way == 'concatenated':
            x = torch.cat(outs, dim=1)
        return self.head(x)


def test_a_chain_is_a_stage():
    (stage,) = find_stages(Model('chain'), (1, 3, 4, 4))
    assert stage.name == 'blocks' and len(stage.blocks) == 4
    assert stage.fixed == 0


def test_blocks_that_something_else_reads_are_not_removable():
    assert find_stages(Model('concatenated'), (1, 3, 4, 4)) == []


def test_a_stage_ends_where_a_feature_map_goes_out():
    stages = find_stages(Model('chain', (0, 3)), (1, 3, 4, 4))
    assert [len(stage.blocks) for stage in stages] == [1, 3]


@pytest.mark.parametrize(
    'removed, expected', [([1], (0, 2)), ([1, 3], (0, 1)), ([2], (0, 2))]
)
def test_indices_follow_a_removal(removed, expected):
    model = Model('chain', (0, 3))
    remove_blocks(model, [f'blocks.{index}' for index in removed])
    assert model.out_indices == expected
    assert model.num_layers == len(model.blocks) == 4 - len(removed)
