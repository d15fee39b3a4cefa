import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from dms_mmrazor.core import LatencyFit
from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.latency import (
    divisor_warning,
    prepare_latency,
    save_latency_table,
)
from dms_mmrazor.latency.measure import device_name
from dms_mmrazor.latency.table import Device, LatencyTable, LayerKind
from dms_mmrazor.subnet import load_structure


def make_table(mutator, divisor=8):
    """A table as it could have been measured here."""
    shares = (0.1, 0.2, 0.2, 0.5)
    kinds = tuple(
        LayerKind(
            layer.name,
            (layer.name,),
            layer.channels,
            LatencyFit(0.05 + 1e-4 * sum(layer.channels), shares, 0.0, 0.0),
            (),
        )
        for layer in mutator.layer_widths
    )
    name = device_name(torch.device('cpu'))
    size = (4, *mutator.analyzer.input_size[1:])
    return LatencyTable(
        Device('cpu', name, 1, str(torch.__version__)),
        size,
        divisor,
        sum(kind.fit.full for kind in kinds),
        15,
        {'structures': 8, 'mean': 0.01, 'worst': 0.03},
        {1: 1.5, divisor: 1.0},
        kinds,
    )


@pytest.fixture
def table_path(zoo, tmp_path):
    path = str(tmp_path / 'latency.yaml')
    mutator = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    save_latency_table(make_table(mutator), path)
    return path


@pytest.fixture
def train(zoo, search_config, tmp_path):
    def run(iterations=30, resume=False, **hook):
        cfg = search_config(
            zoo.cifar_resnet(18),
            tmp_path / 'run',
            iterations=iterations,
            hook=dict(interval=10, **hook),
        )
        cfg['default_hooks']['checkpoint'] = dict(
            type='CheckpointHook', by_epoch=False, interval=10
        )
        cfg['resume'] = resume
        cfg['log_level'] = 'INFO'
        runner = Runner.from_cfg(Config(cfg))
        runner.train()
        return runner

    return run


def log_of(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


def test_a_search_ends_at_its_latency(train, table_path, tmp_path):
    target = dict(latency=0.6)
    runner = train(target=target, latency_table=table_path)
    row = load_structure(
        str(tmp_path / 'run' / 'subnet' / 'subnet.yaml')
    ).resources['latency']
    assert row['unit'] == 'ms' and row['input_size'] == [4, 3, 32, 32]
    assert row['device'].endswith('(cpu, 1 thread)')
    assert row['subnet'] <= row['target']
    assert row['subnet'] == pytest.approx(row['target'], rel=0.01)
    assert row['target'] == pytest.approx(0.6 * row['supernet'], rel=1e-3)
    log = log_of(runner)
    whole = runner.model.mutator.table.full['latency']
    assert f'Target: {0.6 * whole:.4g}ms latency, 0.600' in log
    assert f'DMS refine 100%; latency target {0.6 * whole:.4g}ms' in log
    assert f'latency ({row["ratio"]:.4f} of the supernet' in log


def test_together_with_macs(train, table_path, tmp_path):
    train(
        target=dict(latency=0.7, macs=0.6),
        loss_weight=dict(latency=0.5),
        latency_table=table_path,
    )
    rows = load_structure(
        str(tmp_path / 'run' / 'subnet' / 'subnet.yaml')
    ).resources
    for kind, ratio in (('latency', 0.7), ('macs', 0.6)):
        assert rows[kind]['ratio'] <= ratio
    assert max(rows['latency']['ratio'] / 0.7, rows['macs']['ratio'] / 0.6) > (
        0.98
    )


def test_is_reported_without_a_target(train, table_path, tmp_path):
    runner = train(10, target=0.7, latency_table=table_path)
    rows = load_structure(
        str(tmp_path / 'run' / 'subnet' / 'subnet.yaml')
    ).resources
    assert 'target' not in rows['latency']
    assert 0 < rows['latency']['subnet'] < rows['latency']['supernet']
    scalars = Path(runner.log_dir, 'vis_data', 'scalars.json').read_text()
    found = [json.loads(line) for line in scalars.splitlines()]
    assert any('dms/latency' in row for row in found)


def test_resuming_changes_nothing(train, table_path):
    settings = dict(target=dict(latency=0.6), latency_table=table_path)
    train(20, **settings)
    log = log_of(train(30, resume=True, **settings))
    changes = [li for li in log.splitlines() if 'search changes' in li]
    assert len(changes) == 1 and 'max_iters' in changes[0]


def test_widths_that_the_table_does_not_have(train, table_path):
    runner = train(1, target=0.7, divisor=1, latency_table=table_path)
    assert log_of(runner).count('1.50 times that') == 1


def test_divisor_warning(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    table = make_table(mutator)
    assert divisor_warning(table, 8) is None
    assert divisor_warning(table, 16) is None
    text = divisor_warning(table, 12)
    assert 'widths by 8' in text and 'divisor` is 12' in text
    assert 'times that' not in text


@pytest.mark.parametrize(
    'settings, text',
    [
        (dict(), '`latency_table`'),
        (dict(table='none.yaml'), 'none.yaml does not exist'),
        (dict(table=3), '`latency_table` must be a text, got 3'),
        (dict(table='a', device=3), '`latency_device` must be a text'),
    ],
)
def test_what_cannot_be_used(zoo, settings, text):
    mutator = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    with pytest.raises(DMSError, match=text):
        prepare_latency(mutator, ['latency'], **settings)


def test_nothing_to_do(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    assert prepare_latency(mutator, ['macs']) is None
    assert 'latency' not in mutator.table.full


def test_what_cannot_be_reached(zoo, table_path):
    algorithm = zoo.algorithm(zoo.cifar_resnet(18))
    for target, text in (('1us', 'cannot be reached'), ('1s', 'more than')):
        hook = ResourceHook(dict(latency=target), latency_table=table_path)
        with pytest.raises(DMSError, match=f'ms latency {text}|is {text}'):
            hook.resolve(algorithm)
