import json

import pytest
import torch
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


@pytest.mark.timeout(180)
def test_cut_and_finetuned(call, workspace, tmp_path):
    """All go on from the same network, a search's images included."""
    out = tmp_path / 'out'

    def run(name, *options):
        return call(
            *('compare_methods.py', workspace / 'search.py', '--seeds', 1),
            *('--methods', 'uniform', 'l1-uniform', 'dms', '--out-dir', out),
            *('--finetune', 1, '--search-images', 0.5, '--run', name),
            *options,
        )

    def result(name):
        done = run(name)
        assert not done.status, done.err
        with open(str(out / 'runs' / f'{name}.json')) as file:
            return json.load(file)['result']

    whole = torch.load(result('supernet-s0')['weights'])['state_dict']
    shares = {}
    for method in ('uniform', 'l1-uniform', 'dms'):
        found = result(f'found-{method}-t0.5-s0')
        shares[method] = found['images']
        cut = torch.load(found['weights'])['state_dict']
        assert cut.keys() == whole.keys()
        head = cut['head.fc.weight']
        kept = [
            any(
                torch.equal(column, other)
                for other in whole['head.fc.weight'].T
            )
            for column in head.T
        ]
        # A search has trained on.
        assert any(kept) == (method != 'dms')
        trained = result(f'trained-{method}-t0.5-s0')
        assert trained['images'] + found['images'] == 32
        cfg = Config.fromfile(
            str(
                next(
                    (out / 'files' / f'trained-{method}-t0.5-s0').glob('*.py')
                )
            )
        )
        assert cfg.model.init_cfg.checkpoint == found['weights']
        assert cfg.optim_wrapper.optimizer.lr == 0.05 / 4
    assert shares == {'uniform': 0, 'l1-uniform': 0, 'dms': 16}
    done = run('supernet-s0', '--finetune', 0.5)
    assert done.status and '--finetune must be in (0.5, 1]' in done.err
    done = run('supernet-s0', '--methods', 'dms-pretrained')
    assert done.status and "write 'dms'" in done.err


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
