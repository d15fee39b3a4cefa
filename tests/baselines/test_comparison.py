import math

import pytest

from dms_mmrazor.baselines import comparison as compare
from dms_mmrazor.baselines.runs import Run

GRID = [dict(lr=1), dict(lr=2)]


def planned(methods, **kwargs):
    comparison = compare.Comparison(
        methods, [0.5], [0, 1], {'bed': 'toy'}, {'dms': GRID}, **kwargs
    )
    runs = compare.plan(comparison)
    seen = set()
    for run in runs:  # needs come first
        assert set(run.needs) <= seen
        seen.add(run.name)
    return comparison, {run.name: run for run in runs}


def test_every_method_is_found_and_trained_with_every_seed():
    methods = ['uniform', 'random', 'l1', 'dms', 'depth-uniform']
    _, runs = planned(methods)
    trained = [r for r in runs.values() if r.kind == 'trained']
    final = [r for r in trained if r.settings['seed'] != compare.TUNING_SEED]
    assert sorted(r.settings['method'] for r in final) == sorted(methods * 2)
    found = [r for r in runs.values() if r.kind == 'found']
    # A uniform network does not depend on a seed.
    assert sum(r.settings['method'] == 'uniform' for r in found) == 1
    assert runs['found-l1-t0.5-s1'].needs == ('supernet-s1',)
    assert runs['found-depth-uniform-t0.5-s1'].needs[-1] == 'found-dms-t0.5-s1'


def test_the_grid_is_decided_by_validation_alone():
    _, runs = planned(['dms'])
    run = runs['found-dms-t0.5-s0']
    tried = run.settings['tried']
    assert run.needs == tuple(tried) and len(tried) == 2
    records = {
        name: {'result': {'val': val, 'score': -val}}
        for name, val in zip(tried, (70.0, 71.0))
    }
    assert compare.options_of(run, records) == dict(lr=2)
    alone = Run('r', 'found', {'options': dict(lr=3)})
    assert compare.options_of(alone, {}) == dict(lr=3)


def test_without_retraining_all_cut_the_same_weights():
    _, runs = planned(['uniform', 'dms'], retrained=False)
    assert not [r for r in runs.values() if r.kind == 'trained']
    for run in runs.values():
        if run.kind == 'found':
            assert any(need.startswith('supernet') for need in run.needs)


def record(run, result):
    return dict(
        name=run.name,
        kind=run.kind,
        settings=run.settings,
        result=result,
        cpu_seconds=2.0,
    )


def test_tables_and_files(tmp_path):
    comparison, runs = planned(['uniform', 'dms'])
    scores = {'uniform': [70.0, 72.0], 'dms': [75.0, 77.0]}
    records = {}
    for run in runs.values():
        if run.kind == 'found':
            result = dict(
                found=run.name,
                ratio=0.499,
                images=1280,
                cost=3.0,
                options=run.settings.get('options', GRID[1]),
            )
        else:
            method, seed = run.settings['method'], run.settings['seed']
            value = scores[method][seed % 2]
            result = dict(
                found=run.needs[0],
                val=value,
                score=value,
                options=run.settings.get('options', GRID[0]),
            )
        records[run.name] = record(run, result)
    rows = {
        row['method']: row for row in compare.summarize(comparison, records)
    }
    assert rows['dms']['mean'] == 76 and rows['dms']['gain'] == 5
    assert rows['dms']['error'] == pytest.approx(math.sqrt(2))
    assert rows['dms']['search_images'] == 1280
    assert rows['uniform']['gain'] == 0
    text = compare.write(comparison, records, str(tmp_path), 'top-1')[0]
    assert '+5.00 ± 1.41' in text and 'lr=2' in text
    for suffix in ('md', 'json', 'png'):
        assert (tmp_path / f'comparison.{suffix}').stat().st_size > 100
