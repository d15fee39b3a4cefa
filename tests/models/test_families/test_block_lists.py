"""Blocks in lists that a model iterates over in its own way."""

import pytest
import torch
from torch import nn

from dms_mmrazor.graph import find_stages
from dms_mmrazor.layers.block_lists import remove_blocks


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
    (stage,) = find_stages(Model('concatenated'), (1, 3, 4, 4))
    assert stage.blocks == () and 'blocks.0' in stage.reason


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


class Named(nn.Module):
    """Blocks are attributes; a list has their names."""

    def __init__(self, out_indices=(3,)):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.out_indices = out_indices
        self.names = [f'block{index}' for index in range(4)]
        for index, name in enumerate(self.names):
            block = Residual() if index else nn.Sequential(nn.Conv2d(4, 4, 1))
            self.add_module(name, block)

    def forward(self, image):
        x, outs = self.stem(image), []
        for index, name in enumerate(self.names):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)


def test_blocks_that_are_attributes_are_a_stage():
    (stage,) = find_stages(Named(), (1, 3, 4, 4))
    assert stage.name == 'names' and stage.fixed == 1
    assert [b.name for b in stage.blocks] == ['block1', 'block2', 'block3']
    first, second = find_stages(Named(out_indices=(1, 3)), (1, 3, 4, 4))
    assert (first.fixed, second.fixed) == (1, 0)


def test_attributes_are_removed_with_their_names():
    model = Named((1, 3))
    image = torch.rand(1, 3, 4, 4)
    kept = [getattr(model, f'block{index}') for index in (0, 1, 3)]
    remove_blocks(model, ['block2'])
    assert model.names == ['block0', 'block1', 'block3']
    assert model.out_indices == (1, 2)
    assert not any('block2' in key for key in model.state_dict())
    assert not list(model.block2.parameters())  # code may count names up
    x = model.stem(image)
    for block in kept:
        x = block(x)
    torch.testing.assert_close(model(image)[1], x)


class Beside(nn.Module):
    """A norm beside other branches, as in RepVGG."""

    def __init__(self, act):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.act = act

    def forward(self, x):
        return self.act(self.norm(x) + self.conv(x))


def beside(act):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()),
        nn.Sequential(*[Beside(act) for _ in range(3)]),
    )


def test_a_norm_beside_the_branches_is_bypassed():
    (stage,) = find_stages(beside(nn.ReLU()), (1, 3, 4, 4))
    (block, *_) = stage.blocks
    assert len(stage.blocks) == 3
    assert block.carriers == (('1.0.conv.1', True),)
    assert block.bypassed == ('1.0.norm',)


def test_a_norm_before_another_function_is_not():
    assert find_stages(beside(nn.Sigmoid()), (1, 3, 4, 4)) == []


def test_a_mask_leads_from_the_block_to_the_identity(zoo):
    model = beside(nn.ReLU())
    mutator = zoo.algorithm(zoo.cifar_resnet(depth=18)).mutator
    mutator = type(mutator)(parse_cfg=dict(demo_input=(1, 3, 4, 4)))
    plain = model[1][2]
    mutator.prepare_from_supernet(model)
    x = torch.rand(2, 4, 4, 4)
    model.eval()
    with torch.no_grad():
        full = plain.eval()(x)
        mutator.set_choices({'1': 2})
        removed = mutator.structure().removed_blocks
        block = model.get_submodule(removed[0])
        torch.testing.assert_close(block(x), x)
        mutator.set_choices({'1': 3})
        torch.testing.assert_close(model[1][2](x), full)
