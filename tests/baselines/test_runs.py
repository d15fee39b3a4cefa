import json
import sys

import pytest

from dms_mmrazor.baselines.runs import Run, Study, time_left
from dms_mmrazor.errors import DMSError

SCRIPT = """
import sys
from dms_mmrazor.baselines.runs import Run, Study
runs = [Run('a', 'x', {'value': 2}), Run('b', 'x', {'value': 3}),
        Run('c', 'y', {'value': 5}, ('a', 'b')), Run('d', 'y', {}, ('c',))]
folder, broken, name = sys.argv[1], sys.argv[2], sys.argv[4]
def perform(run, needs):
    with open(folder + '/done.txt', 'a') as file:
        file.write(name)
    if name == broken:
        raise SystemExit('broken on purpose')
    total = sum(record['result']['sum'] for record in needs.values())
    return {'sum': total + run.settings.get('value', 0)}
Study(folder, runs).perform(name, perform)
"""


def runs():
    return [
        Run('a', 'x', {'value': 2}),
        Run('b', 'x', {'value': 3}),
        Run('c', 'y', {'value': 5}, ('a', 'b')),
        Run('d', 'y', {}, ('c',)),
    ]


def execute(folder, broken='none', jobs=2):
    said = []
    command = [sys.executable, '-c', SCRIPT, str(folder), broken]
    study = Study(str(folder), runs())
    try:
        return study.execute(command, jobs, said.append), said
    except DMSError as error:
        return error, said


def test_a_study_goes_on_where_it_stopped(tmp_path):
    error, said = execute(tmp_path, broken='c')
    assert 'c.log' in str(error) and 'd.log' not in str(error)
    log = (tmp_path / 'logs' / 'c.log').read_text(encoding='utf-8')
    assert 'broken on purpose' in log
    assert sorted((tmp_path / 'done.txt').read_text()) == ['a', 'b', 'c']
    records, said = execute(tmp_path)
    assert {k: r['result']['sum'] for k, r in records.items()} == dict(
        a=2, b=3, c=10, d=10
    )
    assert sorted((tmp_path / 'done.txt').read_text()) == list('abccd')
    assert said[0].startswith('2 of 4') and said[-1].startswith('4 of 4')
    assert records['a']['environment']['python']
    assert not execute(tmp_path)[1]  # nothing is left


def test_results_of_other_settings_are_not_used(tmp_path):
    study = Study(str(tmp_path), runs())
    study.perform('a', lambda run, needs: {'sum': 1})
    changed = [Run('a', 'x', {'value': 7})]
    with pytest.raises(DMSError, match='value'):
        Study(str(tmp_path), changed).records()


def test_a_run_needs_its_needs(tmp_path):
    study = Study(str(tmp_path), runs())
    with pytest.raises(DMSError, match='result of a'):
        study.perform('c', lambda run, needs: {})
    with pytest.raises(DMSError, match='z'):
        study.perform('z', lambda run, needs: {})


def test_a_killed_run_leaves_no_result(tmp_path):
    study = Study(str(tmp_path), runs())

    def perform(run, needs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.perform('a', perform)
    assert study.records() == {}
    study.perform('a', lambda run, needs: {'sum': 1})
    path = tmp_path / 'runs' / 'a.json'
    assert json.loads(path.read_text())['result'] == {'sum': 1}


def test_time_left_is_that_of_the_same_kind():
    records = {
        'a': {'kind': 'x', 'seconds': 10.0},
        'c': {'kind': 'y', 'seconds': 100.0},
    }
    assert time_left(runs(), records, jobs=1) == 110
    assert time_left(runs(), records, jobs=2) == 55
    assert time_left(runs(), {}, jobs=2) is None


def test_shares_of_several_processes(tmp_path):
    def perform(run, needs):
        return {'sum': run.settings['value']}

    alone = runs()[:2]
    study, said = Study(str(tmp_path), alone), []
    assert set(study.perform_all(perform, (1, 2), said.append)) == {'b'}
    assert set(study.perform_all(perform, (0, 2))) == {'a', 'b'}
    assert said[-1].startswith('1 of 2')
    assert not study.perform_all(perform, say=said.append) == {}
    assert len(said) == 2  # nothing was left to do


def test_devices_are_dealt_out(tmp_path):
    script = """
import json, os, sys
from dms_mmrazor.baselines.runs import Run, Study
runs = [Run(name, 'x', {}) for name in 'abcd']
def perform(run, needs):
    return {'device': os.environ['CUDA_VISIBLE_DEVICES']}
Study(sys.argv[1], runs).perform(sys.argv[3], perform)
"""
    study = Study(str(tmp_path), [Run(name, 'x', {}) for name in 'abcd'])
    records = study.execute(
        [sys.executable, '-c', script, str(tmp_path)],
        2,
        lambda line: None,
        ['4', '7'],
    )
    first = {records[name]['result']['device'] for name in 'ab'}
    assert first == {'4', '7'}
