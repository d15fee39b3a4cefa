"""From a search to a tested subnet, by the tools alone."""

import pickle
import re

import pytest
import torch

from dms_mmrazor.subnet import load_structure


def accuracy(done):
    assert done.status == 0, done.err
    return float(re.findall(r'accuracy/top1: ([\d.]+)', done.out)[-1])


def weights(path):
    return torch.load(str(path), map_location='cpu')['state_dict']


def test_search_writes_a_subnet(search):
    structure = load_structure(str(search / 'subnet' / 'subnet.yaml'))
    macs = structure.resources['macs']
    assert macs['subnet'] <= macs['target'] == macs['supernet'] // 2
    assert (search / 'subnet' / 'subnet.pth').is_file()


def test_test_takes_checkpoints_of_a_search(search, workspace, tool, tmp_path):
    out = tmp_path / 'predictions.pkl'
    done = tool(
        *('test.py', workspace / 'search.py', search / 'iter_8.pth'),
        *('--work-dir', tmp_path, '--out', out),
    )
    assert 0 <= accuracy(done) <= 100
    with open(str(out), 'rb') as file:
        assert len(pickle.load(file)) == 40


def test_retrain_and_test(search, workspace, tool, tmp_path):
    retrain = workspace / 'retrain.py'
    done = tool('train.py', retrain, '--work-dir', tmp_path)
    assert done.status == 0, done.err
    checkpoint = tmp_path / 'iter_8.pth'
    subnet = weights(search / 'subnet' / 'subnet.pth')
    trained = weights(checkpoint)
    assert {k: v.shape for k, v in trained.items()} == {
        k: v.shape for k, v in subnet.items()
    }
    done = tool('test.py', retrain, checkpoint, '--work-dir', tmp_path)
    assert 0 <= accuracy(done) <= 100


def test_resume_ends_like_an_undisturbed_search(
    search, workspace, tool, tmp_path
):
    done = tool(
        *('train.py', workspace / 'search.py', '--work-dir', tmp_path),
        *('--resume', search / 'iter_4.pth'),
    )
    assert done.status == 0, done.err
    assert 'iter: 4' in done.out
    assert not (tmp_path / 'iter_4.pth').exists()
    expected = weights(search / 'iter_8.pth')
    for name, value in weights(tmp_path / 'iter_8.pth').items():
        assert torch.equal(value, expected[name]), name


def test_export_equals_the_end_of_the_search(
    search, workspace, tool, tmp_path
):
    pytest.importorskip('onnxruntime')
    done = tool(
        *('export_subnet.py', workspace / 'search.py', search / 'iter_8.pth'),
        *('--out-dir', tmp_path, '--onnx'),
    )
    assert done.status == 0, done.err
    assert 'not at its end' not in done.out
    exported = load_structure(str(tmp_path / 'subnet.yaml'))
    found = load_structure(str(search / 'subnet' / 'subnet.yaml'))
    assert exported.units == found.units
    assert exported.stages == found.stages
    expected = weights(search / 'subnet' / 'subnet.pth')
    for name, value in weights(tmp_path / 'subnet.pth').items():
        assert torch.equal(value, expected[name]), name
    difference = re.search(r"ONNX Runtime's .* to ([\d.e+-]+)\.", done.out)
    assert float(difference.group(1)) < 1e-4
    assert (tmp_path / 'subnet.onnx').is_file()


def test_export_from_the_middle(search, workspace, call, tmp_path):
    """At iteration 4 of 8 the decay (0.8) is at 0.625: 0.5 ** 0.625."""
    done = call(
        *('export_subnet.py', workspace / 'search.py', search / 'iter_4.pth'),
        *('--out-dir', tmp_path),
    )
    assert done.status == 0, done.err
    assert 'iteration 4 of 8' in done.out
    assert 'scheduled' in done.out
    structure = load_structure(str(tmp_path / 'subnet.yaml'))
    macs = structure.resources['macs']
    assert macs['target'] == pytest.approx(
        macs['supernet'] * 0.5**0.625, abs=1
    )
    assert macs['subnet'] <= macs['target']


def test_export_for_another_target(search, workspace, call, tmp_path):
    done = call(
        *('export_subnet.py', workspace / 'search.py', search / 'iter_4.pth'),
        *('--out-dir', tmp_path, '--target', 'macs=0.4,params=0.9'),
        *('--divisor', '4'),
    )
    assert done.status == 0, done.err
    structure = load_structure(str(tmp_path / 'subnet.yaml'))
    assert structure.resources['macs']['ratio'] <= 0.4
    assert structure.resources['params']['ratio'] <= 0.9
    assert all(len(unit.kept) % 4 == 0 for unit in structure.units)


def test_visualize(search, call, tmp_path):
    out = tmp_path / 'subnet.png'
    done = call(
        *('visualize_subnet.py', search / 'subnet' / 'subnet.yaml'),
        *('--out', out),
    )
    assert done.status == 0, done.err
    assert out.read_bytes().startswith(b'\x89PNG')


def test_inspect(workspace, call):
    done = call('inspect_supernet.py', workspace / 'search.py')
    assert done.status == 0, done.err
    assert '6 width units with 72 channels, 1 stages with 2' in done.out
    # 8 ** 3 * 16 ** 3 * 2 = 4,194,304 combinations.
    assert 'About 10^7 subnets' in done.out
    assert re.search(r'Target: [\d,]+ macs, 0\.500 .*reachable', done.out)


@pytest.mark.parametrize('by, name', [('stage', 'layer1'), ('layer', 'conv1')])
def test_parts_of_the_supernet(workspace, call, by, name):
    done = call('inspect_supernet.py', workspace / 'search.py', '--parts', by)
    assert done.status == 0, done.err
    (head,) = [
        line for line in done.out.splitlines() if line.startswith(f'{by} ')
    ]
    assert head.split() == [by, 'macs', 'params']
    shares = re.findall(r'^backbone\.\S+ .* ([\d.]+)%$', done.out, re.M)
    assert f'backbone.{name} ' in done.out and len(shares) > 1
    assert 80 < sum(map(float, shares)) <= 100.5
