import json

import pytest
from mmengine.config import Config

METHODS = ['uniform', 'l1', 'taylor', 'dms', 'depth-uniform', 'get']
METHODS.append('dms-pretrained')


@pytest.fixture
def compare(call, workspace, tmp_path):
    """Plans as the tool does, and does runs in this process."""
    out = tmp_path / 'out'
    options = [
        *('--methods', *METHODS, '--seeds', 1, '--targets', 0.5),
        *('--out-dir', out),
    ]

    def run(name):
        done = call(
            *('compare_methods.py', workspace / 'search.py'),
            *(*options, '--run', name),
        )
        assert not done.status, done.err
        with open(str(out / 'runs' / f'{name}.json')) as file:
            return json.load(file)['result']

    return run


@pytest.mark.timeout(180)
def test_each_kind_of_run(compare, tmp_path):
    supernet = compare('supernet-s0')
    assert supernet['images'] == 32
    found = {}
    for method in METHODS:
        found[method] = compare(f'found-{method}-t0.5-s0')
        assert 0.4 < found[method]['ratio'] <= 0.5
    assert found['uniform']['images'] == 0
    assert found['dms']['images'] == 32
    assert found['l1']['images'] == supernet['images']
    assert found['get']['images'] == 32
    # The training of the whole network is part of what such a search costs.
    assert found['dms-pretrained']['images'] == supernet['images'] + 32
    work_dir = tmp_path / 'out' / 'files' / 'found-dms-pretrained-t0.5-s0'
    cfg = Config.fromfile(str(next(work_dir.glob('*.py'))))
    assert cfg.optim_wrapper.optimizer.lr == 0.05 / 4
    weights = cfg.model.architecture.init_cfg.checkpoint
    assert weights == supernet['weights']
    trained = compare('trained-dms-t0.5-s0')
    assert 0 <= trained['score'] <= 100 and trained['images'] == 32
    assert trained['found'] == 'found-dms-t0.5-s0'


@pytest.mark.timeout(180)
def test_methods_that_try_structures(call, workspace, tmp_path):
    out = tmp_path / 'out'

    def run(name):
        done = call(
            *('compare_methods.py', workspace / 'search.py', '--seeds', 1),
            *('--methods', 'ea', 'random-best', '--tried', 4),
            *('--targets', 0.5, '--out-dir', out, '--run', name),
        )
        assert not done.status, done.err
        with open(str(out / 'runs' / f'{name}.json')) as file:
            return json.load(file)['result']

    supernet = run('supernet-s0')
    for method in ('ea', 'random-best'):
        found = run(f'found-{method}-t0.5-s0')
        assert 0.1 < found['ratio'] <= 0.5
        # 40 images to judge, 40 for the norms, each of four structures.
        assert found['images'] == supernet['images'] + 4 * 80


def test_one_command(tool, workspace, tmp_path):
    out = tmp_path / 'out'
    done = tool(
        *('compare_methods.py', workspace / 'search.py'),
        *('--methods', 'uniform', '--seeds', 1, '--jobs', 2),
        *('--retrain', workspace / 'retrain.py', '--out-dir', out),
    )
    assert done.status == 0, done.err
    assert '2 of 2 runs done' in done.out and '| uniform |' in done.out
    assert (out / 'comparison.md').is_file()


def test_unknown_method(call, workspace):
    done = call(
        'compare_methods.py', workspace / 'search.py', '--methods', 'magic'
    )
    assert done.status and 'magic' in str(done.status) + done.err
