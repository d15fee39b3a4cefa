import json
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, load_checkpoint

from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import HOOKS, MODELS
from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.subnet import load_structure

ITERATIONS = 100


class Recorder(Hook):
    """Notes what a search does in every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, **kwargs):
        algorithm = runner.model
        mutator = algorithm.mutator
        self.rows.append(
            dict(
                target=float(algorithm.structure.targets[0]),
                depths=[s.current_choice for s in mutator.depth_units],
                widths=[u.current_choice for u in mutator.units],
                updates=int(mutator.topk.num_updates),
                soft=mutator.resource('macs', hard=False),
                held=bool(mutator.topk.held.any()),
                blocks=mutator.masks.soft_blocks().tolist(),
            )
        )

    def column(self, name):
        return [row[name] for row in self.rows]


class Search:
    """A finished search: its runner, its recorder and its files."""

    def __init__(self, config, hooks=()):
        self.runner = Runner.from_cfg(Config(config))
        self.recorder = Recorder()
        for hook in (self.recorder, *hooks):
            self.runner.register_hook(hook)
        self.runner.train()
        self.algorithm = self.runner.model
        self.folder = Path(config['work_dir']) / 'subnet'

    def scalars(self):
        (path,) = Path(self.runner.work_dir).glob('*/vis_data/scalars.json')
        lines = map(json.loads, path.read_text().splitlines())
        # Rows of the structure stand between those of the iterations.
        return [line for line in lines if 'loss' in line]


@pytest.fixture(scope='module')
def searches(zoo, search_config, tmp_path_factory):
    """Searches to a half and a quarter of the MACs."""
    found = {}

    def get(portion):
        if portion not in found:
            divisor = {0.5: dict(divisor=1), 0.25: {}}[portion]
            hook = dict(target=portion, interval=50, **divisor)
            found[portion] = Search(
                search_config(
                    zoo.cifar_resnet(),
                    tmp_path_factory.mktemp('search'),
                    ITERATIONS,
                    hook=hook,
                    log_level='INFO',
                )
            )
        return found[portion]

    return get


@pytest.fixture
def run(zoo, search_config, tmp_path):
    """A search of a few iterations."""

    def run(
        iterations=4,
        hook=None,
        hooks=(),
        structure_only=False,
        change=None,
        **kwargs,
    ):
        config = search_config(
            zoo.cifar_resnet(18), tmp_path, iterations, 4, hook, **kwargs
        )
        if change is not None:
            change(config)
        if structure_only:
            config['model']['structure_only'] = True
        return Search(config, hooks)

    return run


PORTIONS = pytest.mark.parametrize('portion', [0.5, 0.25])


@PORTIONS
@pytest.mark.parametrize('divisor', [1, 8])
def test_the_subnet_meets_the_target(searches, complexity, portion, divisor):
    search = searches(portion)
    full = search.algorithm.mutator.table.full['macs']
    subnet = export_subnet(
        search.algorithm, dict(macs=portion * full), divisor
    )
    macs = complexity(subnet.model, 32)['macs']
    assert macs <= portion * full
    assert macs >= (0.995 if divisor == 1 else 0.99) * portion * full
    for unit in subnet.structure.units:
        kept = len(unit.kept)
        assert kept % divisor == 0 or kept == unit.size


@PORTIONS
def test_the_hook_writes_that_subnet(searches, zoo, portion):
    search = searches(portion)
    structure = load_structure(str(search.folder / 'subnet.yaml'))
    row = structure.resources['macs']
    divisor = 1 if portion == 0.5 else 8
    expected = export_subnet(
        search.algorithm, dict(macs=row['target']), divisor
    ).structure
    assert structure.units == expected.units
    assert structure.stages == expected.stages
    assert row['subnet'] <= row['target']
    assert row['target'] == pytest.approx(portion * row['supernet'])
    info = structure.search
    assert info['target'] == {'macs': portion}
    assert info['iterations'] == ITERATIONS and info['seed'] == 0
    assert info['divisor'] == divisor
    model = MODELS.build(
        dict(
            type='mmrazor.DMSSubModel',
            architecture=zoo.cifar_resnet(),
            structure=str(search.folder / 'subnet.yaml'),
        )
    )
    weights = str(search.folder / 'subnet.pth')
    load_checkpoint(model, weights, strict=True)
    assert (
        sum(p.numel() for p in model.parameters())
        == (structure.resources['params']['subnet'])
    )


@PORTIONS
def test_the_search_really_narrows(searches, portion):
    search = searches(portion)
    mutator = search.algorithm.mutator
    whole = mutator.table.full['macs']
    # It is the search that gets there, not the rounding at its end.
    final = search.recorder.column('soft')[-1]
    assert final == pytest.approx(portion * whole, rel=0.1)
    importance = mutator.topk.importance
    assert torch.isfinite(importance).all() and (importance > 0).any()
    assert len(set(search.recorder.rows[-1]['widths'])) > 3


@PORTIONS
def test_the_target_follows_equation_10(searches, portion):
    search = searches(portion)
    whole = search.algorithm.mutator.table.full['macs']
    targets = search.recorder.column('target')
    logged = [line['macs_target'] for line in search.scalars()]
    assert len(targets) == len(logged) == ITERATIONS
    for index in range(ITERATIONS):
        progress = min(index / ITERATIONS / 0.8, 1.0)
        expected = portion**progress
        assert targets[index] == pytest.approx(expected * whole)
        assert logged[index] == pytest.approx(expected, rel=1e-5)
    ratios = [line['macs_ratio'] for line in search.scalars()]
    followed = [
        abs(math.log(ratio / target))
        for ratio, target in zip(ratios[10:], logged[10:])
    ]
    assert sorted(followed)[len(followed) // 2] < 0.1


@PORTIONS
def test_depth_is_held_while_refining(searches, portion):
    recorder = searches(portion).recorder
    begin = math.ceil(0.8 * ITERATIONS)
    depths = recorder.column('depths')
    assert recorder.column('held') == [False] * begin + [True] * (
        ITERATIONS - begin
    )
    assert all(depth == depths[begin] for depth in depths[begin:])
    # Widths go on, and the depth was searched before.
    widths = recorder.column('widths')[begin:]
    assert len({tuple(width) for width in widths}) > 1
    assert depths[0] == [3, 3, 5]


@PORTIONS
def test_depth_becomes_hard_without_a_jump(searches, portion):
    """Evenly in the first third; no step is larger than before."""
    recorder = searches(portion).recorder
    begin = math.ceil(0.8 * ITERATIONS)
    steps = math.ceil((ITERATIONS - begin) / 3)
    blocks = torch.tensor(recorder.column('blocks'))
    soft = blocks[begin - 1]
    hard = (soft >= 0.5).float()
    assert (soft - hard).abs().max() > 0.1
    for step in range(1, steps + 1):
        expected = torch.lerp(soft, hard, step / steps)
        torch.testing.assert_close(blocks[begin + step - 1], expected)
    assert torch.equal(
        blocks[begin + steps :], hard.expand_as(blocks[begin + steps :])
    )
    logs = torch.tensor(recorder.column('soft')).log()
    changes = logs.diff().abs()
    assert changes[begin - 1 :].max() <= changes[: begin - 1].max()


@PORTIONS
def test_one_importance_update_per_iteration(searches, portion):
    updates = searches(portion).recorder.column('updates')
    assert updates == list(range(1, ITERATIONS + 1))


def test_the_log_says_what_happens(searches):
    search = searches(0.5)
    (path,) = Path(search.runner.work_dir).glob('*/*.log')
    log = path.read_text()
    for words in (
        'Search space:',
        'macs                59.69M          59.69M          59.69M',
        '16 width units with 672 channels, 3 stages with 11 removable blocks',
        'Target: 29.84M macs',
        'DMS decay',
        'DMS refine 100%; macs target 29.84M (0.500)',
        'The depths are held from iteration 81 on (backbone.layer1 ',
        'Until iteration 87 blocks that are kept in part become whole or ',
        'Rounding: ',
        ' under its target)',
        'subnet.yaml',
    ):
        assert words in log, words


@PORTIONS
def test_every_interval_has_its_line(searches, portion):
    """Phase, target, current and losses, and they are the recorded ones."""
    search = searches(portion)
    (path,) = Path(search.runner.work_dir).glob('*/*.log')
    lines = [li for li in path.read_text().splitlines() if 'DMS ' in li]
    assert len(lines) == ITERATIONS // 50
    rows, scalars = search.scalars(), search.runner.message_hub
    pattern = re.compile(
        r'DMS (decay|refine) (\d+)%; macs target [\d.]+M \(([\d.]+)\), '
        r'current [\d.]+M \(([\d.]+)\), if exported now [\d.]+M '
        r'\([\d.]+\); task loss ([\d.]+), resource loss ([\d.e-]+)$'
    )
    for index, line in enumerate(lines):
        phase, percent, target, current, task, resource = pattern.search(
            line
        ).groups()
        iteration = 50 * (index + 1)
        progress = min((iteration - 1) / ITERATIONS / 0.8, 1.0)
        assert phase == ('refine' if iteration > 80 else 'decay')
        assert int(percent) == pytest.approx(100 * progress, abs=0.51)
        assert float(target) == pytest.approx(portion**progress, abs=6e-4)
        # The line is written after the step, the row before it.
        now = rows[iteration - 1]['macs_ratio']
        assert float(current) == pytest.approx(now, rel=0.1)
        loss, whole = (
            scalars.get_scalar(f'train/{name}').data[0][:iteration][-50:]
            for name in ('loss_macs', 'loss')
        )
        assert float(resource) == pytest.approx(loss.mean(), rel=1e-3)
        expected = whole.mean() - loss.mean()
        assert float(task) == pytest.approx(expected, rel=1e-3)


def test_parts_by_stage_in_the_visualizer(searches):
    search = searches(0.5)
    (path,) = Path(search.runner.work_dir).glob('*/vis_data/scalars.json')
    lines = map(json.loads, path.read_text().splitlines())
    rows = [line for line in lines if 'dms/macs' in line]
    assert len(rows) == ITERATIONS // 50
    for row in rows:
        for kind in ('macs', 'params'):
            parts = [v for k, v in row.items() if k.startswith(f'dms/{kind}/')]
            assert len(parts) == 5
            assert sum(parts) == pytest.approx(row[f'dms/{kind}'])
        assert row['dms/macs/backbone.layer3'] > row['dms/macs/head']


def test_structure_only(run):
    before = {}

    class Start(Hook):
        def before_train(self, runner):
            model = runner.model.architecture
            before.update(
                {k: v.clone() for k, v in model.state_dict().items()}
            )

    search = run(8, hooks=[Start()], structure_only=True)
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    for name, value in search.algorithm.architecture.state_dict().items():
        if not name.endswith(statistics):
            assert torch.equal(value, before[name]), name
    mean = 'backbone.bn1.running_mean'
    state = search.algorithm.architecture.state_dict()
    assert not torch.equal(state[mean], before[mean])
    assert (search.algorithm.mutator.topk.pruning_ratio > 0).any()
    assert (search.folder / 'subnet.yaml').exists()


def test_gradient_accumulation(run):
    optim_wrapper = dict(
        optimizer=dict(type='SGD', lr=0.05),
        accumulative_counts=2,
    )
    search = run(5, optim_wrapper=optim_wrapper)
    assert int(search.algorithm.structure.step.count) == 3
    # The last iteration is a step of its own.
    assert search.recorder.column('updates') == [0, 1, 1, 2, 3]


def test_warmup_has_no_constraint(run):
    hook = dict(target=0.5, warmup=0.5, decay=0.25, interval=1)
    search = run(8, hook, log_level='INFO')
    whole = search.algorithm.mutator.table.full['macs']
    targets = search.recorder.column('target')
    assert targets[:4] == [math.inf] * 4
    assert targets[4:] == pytest.approx(
        [whole, whole * 0.5**0.5, *[whole / 2] * 2]
    )
    scalars = search.scalars()
    assert [line['loss_macs'] for line in scalars[:4]] == [0] * 4
    assert [line['macs_target'] for line in scalars[:4]] == [1] * 4
    (path,) = Path(search.runner.work_dir).glob('*/*.log')
    assert 'DMS warmup 0%; macs target none' in path.read_text()


def test_phases_by_epoch_and_by_iteration(run):
    """Both count what the training counts, not portions of it."""
    by_epoch = dict(
        train_cfg=dict(by_epoch=True, max_epochs=3),
        param_scheduler=[],
    )
    hook = dict(target=0.6, warmup='1 epoch', decay='10 iterations')

    def loader(config):
        config['train_dataloader'].update(
            batch_size=40, sampler=dict(type='DefaultSampler', shuffle=True)
        )

    search = run(3, hook, change=loader, **by_epoch)
    # 240 images: 6 iterations per epoch.
    targets = search.recorder.column('target')
    whole = search.algorithm.mutator.table.full['macs']
    expected = [math.inf] * 6
    expected += [whole * 0.6 ** (index / 10) for index in range(10)]
    expected += [whole * 0.6] * 2
    assert targets == pytest.approx(expected)
    assert search.recorder.column('held') == [False] * 16 + [True] * 2


@pytest.mark.parametrize('schedule', ['linear', 'cosine', 'constant'])
def test_other_shapes(run, schedule):
    search = run(5, dict(target=0.6, decay=0.8, schedule=schedule))
    whole = search.algorithm.mutator.table.full['macs']
    found = [target / whole for target in search.recorder.column('target')]
    share = {
        'linear': lambda p: p,
        'cosine': lambda p: (1 - math.cos(math.pi * p)) / 2,
        'constant': lambda p: 1.0,
    }[schedule]
    assert found == pytest.approx(
        [1 - 0.4 * share(index / 4) for index in range(5)]
    )


def log_of(search):
    path = Path(search.runner.log_dir) / f'{search.runner.timestamp}.log'
    return path.read_text()


def test_a_target_that_constrains_nothing(run):
    search = run(1, dict(target=dict(macs=0.5, params=1.0)))
    log = log_of(search)
    assert re.search(r'target \(params\)`: [\d.]+K constrains nothing', log)
    assert 'target (macs)`' not in log


def test_several_targets_and_a_folder(run, tmp_path):
    hook = dict(
        target=dict(macs=0.6, params='100K'),
        loss_weight=dict(macs=0.5),
        out_dir=str(tmp_path / 'found'),
    )
    search = run(4, hook)
    rows = load_structure(str(tmp_path / 'found' / 'subnet.yaml')).resources
    assert rows['params']['target'] == 100_000
    for row in rows.values():
        assert row['subnet'] <= row['target']
    assert search.algorithm.structure.targets.shape == (2,)


def test_depth_may_go_on(run):
    search = run(5, dict(target=0.6, decay=0.4, hold_depth=False))
    assert not any(search.recorder.column('held'))


def test_validation_sees_hard_masks(run, digits):
    seen = []

    class Masks(Hook):
        def after_val_iter(self, runner, batch_idx, **kwargs):
            masks = torch.cat(runner.model.mutator.masks.table.masks)
            hard = runner.model.mutator.topk.hard_mask()
            seen.append(torch.equal(masks, hard.float()))

    dataset = dict(
        type='mmpretrain.CustomDataset',
        data_root=digits,
        data_prefix='train',
        with_label=True,
        pipeline=[
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmpretrain.PackInputs'),
        ],
    )
    run(
        4,
        hooks=[Masks()],
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        val_dataloader=dict(
            batch_size=120,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        val_cfg=dict(),
        val_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
    )
    assert seen == [True] * 4


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(target=1e-4), ['cannot be reached', 'smallest reachable']),
        (dict(target='1K'), ['1K macs', 'smallest reachable 2.159M']),
        (dict(target='1T'), ['must be a ratio', "'1T'"]),
        (dict(target='60M'), ['more than the supernet', '59.69M']),
        (dict(target=0.5, resource='flops'), ["'flops'", 'macs', 'params']),
        (dict(target=dict(macs=0.5, params=2e9)), ['params', 'more than']),
    ],
)
def test_bad_targets_are_found_before_training(zoo, kwargs, words):
    hook = ResourceHook(**kwargs)
    with pytest.raises(DMSError) as error:
        hook.resolve(zoo.algorithm(zoo.cifar_resnet()))
    assert all(word in str(error.value) for word in words), error.value
    assert 'ResourceHook' in str(error.value)
    assert '\n' not in str(error.value)


def test_the_smallest_reachable_is_named_and_reachable(zoo):
    algorithm = zoo.algorithm(zoo.cifar_resnet())
    low, _ = algorithm.mutator.table.range('macs', 8)
    with pytest.raises(DMSError):
        ResourceHook(target=0.999 * low).resolve(algorithm)
    targets = ResourceHook(target=1.001 * low).resolve(algorithm)
    assert export_subnet(algorithm, targets).difference < 1e-5
    # With a smaller divisor more can be reached.
    assert ResourceHook(target=0.5 * low, divisor=1).resolve(algorithm)


@pytest.mark.parametrize(
    'kwargs, key',
    [
        (dict(divisor=0), 'divisor'),
        (dict(divisor=1.5), 'divisor'),
        (dict(interval=0), 'interval'),
        (dict(decay=0), 'decay'),
        (dict(decay=1.5), 'decay'),
        (dict(warmup=-0.1), 'warmup'),
        (dict(warmup=0.5, decay=0.6), 'warmup'),
        (dict(schedule='stairs'), 'stairs'),
        (dict(loss_weight=0), 'loss_weight'),
        (dict(loss_weight=-1.0), 'loss_weight'),
        (dict(loss_weight='big'), 'loss_weight'),
        (dict(loss_weight=float('nan')), 'loss_weight'),
        (dict(loss_weight=dict(macs=-1)), 'loss_weight'),
        (dict(loss_weight=dict(mac=1.0)), 'loss_weight'),
    ],
)
def test_bad_arguments(kwargs, key):
    with pytest.raises(DMSError, match=f'ResourceHook.*{key}') as error:
        HOOKS.build(dict(type='mmrazor.ResourceHook', target=0.5, **kwargs))
    assert '\n' not in str(error.value)


def test_another_model(zoo, run):
    plain = dict(zoo.cifar_resnet(18))
    with pytest.raises(DMSError, match='DMSAlgorithm.*ImageClassifier'):
        run(
            1,
            model=plain,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
