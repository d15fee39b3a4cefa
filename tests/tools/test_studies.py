"""The studies' commands, on a handful of images made of noise."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from .conftest import ROOT

MODULES = (
    *('networks', 'beds', 'searches', 'bed_runs', 'study'),
    *('price_truth', 'speed', 'synthetic', 'family'),
    *('shared_supernets', 'shared_spaces'),
)


@pytest.fixture
def studies(monkeypatch, tmp_path):
    """Import a module of the studies, whose data are some random images."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, number in (('train', 300), ('test', 60)):
        shape = (number, 3, 16, 16)
        images = generator.integers(0, 255, shape, dtype=np.uint8)
        arrays[f'{split}_images'] = images
        arrays[f'{split}_labels'] = np.arange(number) % 10
    np.savez(str(tmp_path / 'cifar10_16.npz'), **arrays)
    monkeypatch.setenv('DMS_CACHE', str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks' / 'studies'))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def call(studies, monkeypatch, tmp_path):
    """One run of a command, in this process; its result."""

    def call(module, *args, run):
        argv = [f'{module}.py', *map(str, args), '--run', run]
        monkeypatch.setattr(sys, 'argv', [*argv, '--out-dir', 'out'])
        studies(module).main()
        path = tmp_path / 'out' / 'runs' / f'{run}.json'
        return json.loads(path.read_text())['result']

    return call


SHORT = ('plain', '--epochs', 1, '--search-epochs', 2, '--seeds', 0)


@pytest.mark.parametrize('method', ['dms', 'mes'])
def test_found_and_retrained(call, method):
    options = ('study', 'found_and_retrained', *SHORT)
    options += ('--methods', 'uniform', 'dms-adam', method)
    if method == 'mes':  # its grid is tried first, with a seed of its own
        name = 'found-mes-t0.25-s100-g1'
    else:
        name = 'found-dms-t0.25-s0'
    found = call(*options, run=name)
    assert 0.2 < found['ratio'] <= 0.25 and found['images'] > 0
    trained = call(*options, run=name.replace('found', 'trained'))
    assert 0 <= trained['score'] <= 100


def test_variants_have_settings_of_their_own(call):
    options = ('study', 'supernets', *SHORT, '--methods', 'dms-larger')
    found = call(*options, run='found-dms-larger-t0.25-s0')
    assert found['options'] == {'scale': 1.5} and found['ratio'] <= 0.25
    trained = call(*options, run='trained-dms-larger-t0.25-s0')
    assert trained['images'] > 0


def test_every_study_can_be_planned(studies, monkeypatch):
    study, bed_runs = studies('study'), studies('bed_runs')
    for name, described in study.STUDIES.items():
        monkeypatch.setattr(sys, 'argv', ['study.py', name, 'residual'])
        args = bed_runs.parse(study.__doc__, study.STUDIES)
        plan = bed_runs.planned(args, described)
        runs = bed_runs.compare.plan(plan)
        kinds = {run.kind for run in runs}
        assert ('trained' in kinds) == (described.mode != 'cut'), name
        assert ('supernet' in kinds) == any(
            [
                described.mode != 'retrained',
                described.pretrained,
                'taylor' in plan.methods,
            ]
        )


def test_true_prices(call, studies):
    options = ('price_truth', 'plain', '--epochs', 1, '--seeds', 0)
    prices = call(*options, run='prices-s0')
    units = prices['units']
    base = call(*options, run='narrowed-none-s0')
    narrow = call(*options, run=f'narrowed-{units[0]}-s0')
    assert narrow['macs'] < base['macs'] and narrow['loss'] > 0
    records = {
        'prices': dict(kind='prices', settings={}, result=prices),
        **{
            unit: dict(
                kind='narrowed',
                settings={'unit': unit, 'seed': 0},
                result=narrow if unit else base,
            )
            for unit in ('', *units)
        },
    }
    module = studies('price_truth')
    text = module.table(module.summarize(records))
    assert text.count('\n') == len(units) + 2


def test_speed(call):
    options = ('speed', 'plain', '--epochs', 10, '--seeds', 0)
    assert call(*options, run='table')['supernet'] > 0
    macs = call(*options, run='found-macs-s0')
    latency = call(*options, run='found-latency-s0')
    assert latency['latency'] <= macs['latency'] * (1 + 1e-6)


def test_family(call, studies):
    """Each budget of one search is met as by a search of its own."""
    options = ('family', 'plain', '--epochs', 1, '--search-epochs', 10)
    options += ('--seeds', 0, '--budgets', 0.7, 0.5)
    call(*options, run='supernet-s0')
    found = call(*options, run='found-family-t0.7-t0.5-s0')
    ratios = {name: row['ratio'] for name, row in found['found'].items()}
    assert 0.69 < ratios['0.7'] <= 0.7 and 0.49 < ratios['0.5'] <= 0.5
    single = call(*options, run='found-single-t0.5-s0')
    assert single['images'] == found['images']
    uniform = call(*options, run='found-uniform-t0.5-s0')
    assert not uniform['images']
    assert 0.49 < uniform['found']['0.5']['ratio'] <= 0.5
    trained = call(*options, run='trained-family-t0.7-s0')
    assert 0 <= trained['score'] <= 100 and trained['ratio'] <= 0.7
    module = studies('family')
    records = {}
    for arm in module.ARMS:
        base = {'arm': arm, 'seed': 0}
        search = {'images': 300, 'cost': 1.0}
        records[f'found-{arm}'] = dict(
            kind='found', settings=base, result=search
        )
        records[f'trained-{arm}'] = dict(
            kind='trained', settings={**base, 'budget': 0.7}, result=trained
        )
    assert module.table(records).count('\n') == 5


def test_synthetic(studies, monkeypatch, tmp_path, capsys):
    out = tmp_path / 'synthetic.json'
    argv = ['synthetic.py', '--seeds', '2', '--steps', '30', '--best', '200']
    argv += ['--rules', 'price', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', argv)
    studies('synthetic').main()
    rows = json.loads(out.read_text())['rows']
    uniform = rows[0]['loss']
    price = next(r for r in rows if r.get('factor') == 1.0)
    assert sum(price['loss']) < sum(uniform)
    assert '| price | 30 |' in capsys.readouterr().out


@pytest.mark.timeout(120)
def test_shared_supernets(call):
    options = (
        *('ofa', '--epochs', 0.5, '--steps', 4, '--tried', 3),
        *('--population', 2, '--seeds', 0, '--targets', 0.65),
    )
    trained = call('shared_supernets', *options, run='supernet')
    assert 0 <= trained['largest'] <= 100
    # A generation of two is one too few for three; norms take 270 images.
    for method, tried, steps in (('ea', 2, 0), ('dms', 0, 4)):
        run = f'{method}-macs0.65-s0'
        found = call('shared_supernets', *options, run=run)
        assert 0.4 < found['ratio'] <= 0.65 + 1e-6
        assert found['forward_images'] == tried * 300 + steps * 128
        assert found['backward_images'] == steps * 128
