"""The tables of the study of scores, from made-up trainings."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / 'benchmarks' / 'studies'
NUMBER, LENGTHS = 12, [0.5, 1.0]


@pytest.fixture(scope='module')
def study():
    sys.path.insert(0, str(STUDIES))
    yield importlib.import_module('ranking')
    sys.path.remove(str(STUDIES))
    for name in ('ranking', 'beds', 'networks'):
        sys.modules.pop(name, None)


def short(true, noise, length):
    loss = 2 - true / 10 + noise
    return dict(
        losses=[2.0, loss],
        seconds=[length, length],
        landscape=[2.0, loss],
        accuracy=true - noise,
        costs=dict(training=2 * length, landscape=0.1, evaluation=0.2),
        diverged='',
    )


@pytest.fixture
def records(study):
    draw = np.random.default_rng(0)
    found = {
        'structures': dict(result=dict(macs=[1] * NUMBER, params=[1, 2] * 6))
    }
    for index in range(NUMBER):
        for seed in (0, 1):
            test = 60 + index + draw.normal(0, 0.1)
            name = f'c{index:02d}-s{seed}'
            found[f'full-{name}'] = dict(result=dict(test=test, val=test))
            arms = [f'whole/{length:g}' for length in LENGTHS]
            arms += [f'{arm}/1' for arm in study.ARMS if arm != 'whole']
            found[f'short-{name}'] = dict(
                result={
                    arm: short(index, draw.normal(0, 0.01), float(arm[-1]))
                    for arm in arms
                }
            )
    return found


def test_tables_of_the_study(study, records):
    for record in records.values():
        for key in [k for k in record['result'] if k == 'whole/0.5']:
            record['result'][key]['costs']['training'] = 1.0
    found = study.analyze(records, [0, 1], NUMBER, resamples=50)
    rows = {(r['arm'], r['epochs'], r['score']): r for r in found['rows']}
    assert len(rows) == 8 * 6  # two lengths and six other arms, six scores
    row = rows['whole', 1.0, 'accuracy']
    assert row['tau'].value == pytest.approx(1)
    assert row['tau'].low > 0.9 and row['best_third'] == pytest.approx(1)
    assert row['regret'] == 0 and row['seconds'] == pytest.approx(2.2)
    assert found['truth']['ceiling']['tau'] > 0.9
    assert found['truth']['regret_of_a_random_choice'] > 5
    drawn = found['drawn']
    assert drawn['mean'] < drawn['best_of_four'] < drawn['best'] < 72
    budgets = found['equal_seconds']
    assert len(budgets) == 3
    assert budgets[0]['landscape'] == pytest.approx(1, abs=0.1)
    text = study.text_of(found)
    assert 'RD clusters' in text and 'at equal seconds' in text
    assert not math.isnan(found['parameters_alone'])


def test_plan_needs_the_features_of_clusters(study):
    args = study.parse_args(['residual', '--structures', '3'])
    runs = {run.name: run for run in study.plan(args)}
    assert len(runs) == 1 + 2 * 3 * 2
    assert runs['short-c02-s1'].needs == ('structures', 'full-c00-s0')
    one = study.parse_args(
        ['residual', '--structures', '3', '--short-seeds', '1']
    )
    names = [run.name for run in study.plan(one)]
    assert len(names) == 1 + 3 * 3 and 'short-c00-s0' not in names


def test_truth_of_more_seeds_than_scores(study, records):
    fewer = dict(records)
    for index in range(NUMBER):
        del fewer[f'short-c{index:02d}-s1']
    found = study.analyze(fewer, [0, 1], NUMBER, resamples=20)
    assert found['truth']['ceiling']['tau'] > 0.9
    assert all(math.isnan(row['between_seeds']) for row in found['rows'])
