import pytest
import torch
from torch import nn

from dms_mmrazor.graph import find_stages, stage_finder

SHAPE = (1, 4, 8, 8)


class Residual(nn.Module):
    """relu(x + f(x)); f ends in a norm or in what is given."""

    def __init__(self, end=None, stride=1, outputs=4, inplace=True):
        super().__init__()
        self.conv = nn.Conv2d(4, outputs, 3, stride, padding=1)
        self.end = nn.BatchNorm2d(outputs) if end is None else end
        self.relu = nn.ReLU(inplace=inplace)
        self.down = None
        if stride > 1 or outputs != 4:
            self.down = nn.Conv2d(4, outputs, 1, stride)

    def forward(self, x):
        identity = x if self.down is None else self.down(x)
        return self.relu(identity + self.end(self.conv(x)))


class Sequence(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.relu = nn.ReLU()
        self.stage = nn.Sequential(*blocks)

    def forward(self, x):
        return self.stage(self.relu(x))


def found(*blocks):
    return find_stages(Sequence(*blocks), SHAPE)


def test_resnets(zoo):
    stages = find_stages(zoo.plain(zoo.resnet(50)), (1, 3, 64, 64))
    assert [(s.name, len(s.blocks), s.fixed) for s in stages] == [
        ('backbone.layer1', 2, 1),
        ('backbone.layer2', 3, 1),
        ('backbone.layer3', 5, 1),
        ('backbone.layer4', 2, 1),
    ]
    for block in (block for stage in stages for block in stage.blocks):
        assert block.carrier == f'{block.name}.bn3' and block.folds


def test_a_first_block_that_keeps_the_shape_is_removable(zoo):
    stages = find_stages(zoo.plain(zoo.cifar_resnet()), (1, 3, 32, 32))
    assert [(len(s.blocks), s.fixed) for s in stages] == [
        (3, 0),
        (3, 1),
        (5, 1),
    ]


def test_the_model_is_not_changed(zoo):
    model = zoo.plain(zoo.cifar_resnet()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    find_stages(model, (1, 3, 32, 32))
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(m._forward_hooks for m in model.modules())
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert relus and all(relu.inplace for relu in relus)


def test_zero_initialized_norms_and_small_scales_hide_nothing():
    block = Residual()
    nn.init.zeros_(block.end.weight)
    (stage,) = found(block, Residual())
    assert len(stage.blocks) == 2


def test_a_running_mean_does_not_hide_a_branch():
    block = Residual()
    nn.init.normal_(block.end.running_mean)
    (stage,) = found(block, Residual())
    assert stage.blocks[0].carrier == 'stage.0.end'


@pytest.mark.parametrize(
    'end, carrier, folds',
    [
        # A norm after a conv has a bias: only the norm itself folds.
        (nn.BatchNorm2d(4), 'end', True),
        (nn.Identity(), 'conv', True),
        (nn.Dropout(0.5), 'conv', True),
        (nn.Hardtanh(), 'end', False),
        (nn.InstanceNorm2d(4), 'end', False),
    ],
)
def test_the_carrier_ends_the_branch(end, carrier, folds):
    (stage,) = found(Residual(end), Residual())
    block = stage.blocks[0]
    assert block.carrier == f'stage.0.{carrier}'
    assert block.folds is folds


def test_only_what_is_an_identity_without_f_can_go():
    assert found(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())) == []
    assert found(Residual(stride=2)) == []
    assert found(Residual(outputs=8)) == []
    assert found(nn.Sequential(nn.Identity())) == []


def test_runs_of_one_container_are_stages_of_their_own():
    plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    stages = found(Residual(), Residual(), plain, Residual(), Residual())
    assert [stage.name for stage in stages] == ['stage.0', 'stage.3']
    assert [len(stage.blocks) for stage in stages] == [2, 2]


def test_a_shared_block_is_not_removable():
    block = Residual()
    (stage,) = found(block, block)
    assert stage.blocks == () and 'more than once' in stage.reason


def test_a_model_without_blocks():
    assert find_stages(nn.Sequential(nn.Conv2d(4, 4, 1)), SHAPE) == []


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.conv(x)


@pytest.mark.parametrize('outer, inner', [(3, 2), (1, 2)])
def test_of_nested_stages_the_longer_one_is_searched(outer, inner):
    blocks = [
        nn.Sequential(*[Half() for _ in range(inner)]) for _ in range(outer)
    ]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*blocks))
    stages = find_stages(model, (1, 3, 4, 4))
    reasons = {stage.name: stage.reason for stage in stages}
    searched = [name for name, reason in reasons.items() if not reason]
    assert searched == (['1'] if outer > inner else ['1.0'])
    assert 'it overlaps stage' in reasons['1.0' if outer > inner else '1']


def test_a_list_of_one_block_in_a_list_is_named_once():
    ends = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    lists = [nn.Sequential(Half()), *ends, nn.Sequential(Half()), *ends]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*lists))
    stages = find_stages(model, (1, 3, 4, 4))
    assert [(s.name, len(s.blocks), s.reason) for s in stages] == [
        ('1.0', 1, ''),
        ('1.3', 1, ''),
    ]


class Adding(Residual):
    """Adds to its input in place, whatever its modules do."""

    def forward(self, x):
        x += self.end(self.conv(x))
        return x


def test_a_block_that_changes_its_input_is_found():
    (stage,) = found(Adding(), Adding(), Adding())
    assert len(stage.blocks) == 3
    assert [block.carrier for block in stage.blocks] == [
        f'stage.{index}.end' for index in range(3)
    ]


class Scaled(nn.Module):
    """x + scale * f(x)."""

    def __init__(self):
        super().__init__()
        self.f = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x, *, scale):
        return x + scale['factors'][0] * self.f(x)


class Pair(Scaled):
    """Gives its branch, too."""

    def forward(self, x, *, scale):
        y = super().forward(x, scale=scale)
        return y, y - x


class Sized(Scaled):
    """Gives the size of its map, too."""

    def forward(self, x, *, scale):
        return super().forward(x, scale=scale), tuple(x.shape[2:])


class Two(Scaled):
    """Its branches are behind different ways around."""

    def forward(self, x, *, scale):
        return 0.5 * x + self.f(x)


class Lists(nn.Module):
    """Calls blocks in its own way."""

    def __init__(self, block, by_name=False, wrap=None, dense=False):
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.head = nn.Conv2d(12 if dense else 4, 2, 1)
        self.by_name, self.wrap, self.dense = by_name, wrap, dense

    def forward(self, x):
        scale, outputs = dict(factors=[torch.full((1,), 0.5)]), []
        for block in self.blocks:
            x = (
                block(x=x, scale=scale)
                if self.by_name
                else block(x, scale=scale)
            )
            x = x[0] if isinstance(x, tuple) else x
            outputs.append(x)
        y = self.head(torch.cat(outputs, 1) if self.dense else x)
        return y if self.wrap is None else self.wrap(y)


class Result:
    def __init__(self, y):
        self.y = y


@pytest.mark.parametrize('by_name', [False, True])
@pytest.mark.parametrize('wrap', [None, lambda y: {'y': [y]}, Result])
def test_blocks_with_keyword_arguments(by_name, wrap):
    (stage,) = find_stages(Lists(Scaled, by_name, wrap), SHAPE)
    assert len(stage.blocks) == 3 and not stage.reason


def test_blocks_that_give_numbers_beside_their_tensor():
    (stage,) = find_stages(Lists(Sized), SHAPE)
    assert len(stage.blocks) == 3 and not stage.reason


@pytest.mark.parametrize(
    'model, word',
    [
        (Lists(Scaled, dense=True), 'blocks.0'),
        (Lists(Scaled, dense=True, wrap=lambda y: {'y': y}), 'blocks.0'),
        (Lists(Scaled, wrap=lambda y: 1.0), 'no tensor'),
        (Lists(Pair), 'more than one tensor'),
        (Lists(Two), 'silenced'),
    ],
)
def test_residual_blocks_that_are_no_stage_have_a_reason(model, word):
    (stage,) = find_stages(model, SHAPE)
    assert (stage.name, stage.blocks, stage.fixed) == ('blocks', (), 3)
    assert word in stage.reason


@pytest.mark.parametrize(
    'error', [RuntimeError('CUDA out of memory'), MemoryError()]
)
def test_a_device_that_gives_up_is_no_answer(monkeypatch, error):
    def remove(model, names):
        model.head.register_forward_pre_hook(fail)

    def fail(module, args):
        raise error

    monkeypatch.setattr(stage_finder, 'remove_blocks', remove)
    with pytest.raises(type(error)):
        find_stages(Lists(Scaled), SHAPE)


def test_layers_before_a_silenced_module_compute_once():
    calls = []

    class Counting(nn.Conv2d):
        def forward(self, x):
            calls.append(x)
            return super().forward(x)

    blocks = [Residual(nn.Sequential(*[nn.ReLU() for _ in range(9)]))]
    blocks[0].conv = Counting(4, 4, 3, padding=1)
    (stage,) = found(*blocks, Residual())
    assert len(stage.blocks) == 2
    assert len(calls) < 6


def test_a_norm_without_weights_does_not_carry_a_mask():
    (stage,) = found(Residual(nn.BatchNorm2d(4, affine=False)), Residual())
    assert not stage.blocks[0].folds


def test_blocks_of_the_model_itself_have_a_name():
    """A bare sequence is the container, and has no name of its own."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block())
    (stage,) = find_stages(model, (1, 3, 8, 8))
    assert stage.name == 'Sequential'
    assert [block.name for block in stage.blocks] == ['1', '2']


class Branches(nn.Module):
    """x, plus some branches one after the other."""

    def __init__(self, number):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 8, 1), nn.GELU(), nn.Conv2d(8, 4, 1))
            for _ in range(number)
        )

    def forward(self, x):
        for branch in self.branches:
            x = x + branch(x)
        return x


@pytest.mark.parametrize('number, blocks', [(2, 3), (6, 0)])
def test_a_few_runs_for_each_module_of_a_block(monkeypatch, number, blocks):
    runs = []
    call = Branches.forward
    monkeypatch.setattr(
        Branches, 'forward', lambda self, x: runs.append(1) or call(self, x)
    )
    stages = found(*[Branches(number) for _ in range(3)])
    searched = [s for s in stages if s.name == 'stage']
    assert sum(len(stage.blocks) for stage in searched) == blocks
    modules = sum(1 for _ in Branches(number).modules())
    assert len(runs) < 6 * modules
