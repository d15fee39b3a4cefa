import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.subnet.onnx_export import export_onnx

pytest.importorskip('onnx')


@pytest.fixture
def subnet(zoo, randomize_structure, randomize_model):
    search = zoo.algorithm(zoo.cifar_resnet(18))
    randomize_model(search.architecture)
    randomize_structure(search.mutator)
    return export_subnet(search, divisor=2).model.eval()


def test_file_computes_what_the_model_does(subnet, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = tmp_path / 'new' / 'subnet.onnx'
    difference = export_onnx(subnet, (1, 3, 32, 32), str(path))
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    for batch in (1, 3):
        image = torch.rand(batch, 3, 32, 32)
        (found,) = session.run(['output'], {'input': image.numpy()})
        with torch.no_grad():
            expected = subnet(image, mode='tensor')
        if isinstance(expected, tuple):
            (expected,) = expected
        assert found.shape == tuple(expected.shape)
        assert np.abs(found - expected.numpy()).max() < 1e-4
    # Without ONNX's external data, and without a rest of the writing.
    assert [file.name for file in path.parent.iterdir()] == ['subnet.onnx']


def test_training_mode_comes_back(subnet, tmp_path):
    subnet.train()
    export_onnx(subnet, (1, 3, 32, 32), str(tmp_path / 'a.onnx'))
    assert subnet.training


def test_several_outputs(tmp_path):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.second = nn.Conv2d(3, 2, 1)

        def forward(self, image):
            return {'a': self.first(image), 'b': [self.second(image)]}

    onnx = pytest.importorskip('onnx')
    path = str(tmp_path / 'heads.onnx')
    export_onnx(Heads(), (1, 3, 8, 8), path)
    names = [output.name for output in onnx.load(path).graph.output]
    assert names == ['output0', 'output1']


def test_failure_leaves_the_former_file(subnet, tmp_path):
    path = tmp_path / 'subnet.onnx'
    path.write_text('former')

    def fail(model, image):
        raise RuntimeError('no forward')

    with pytest.raises(RuntimeError, match='no forward'):
        export_onnx(subnet, (1, 3, 32, 32), str(path), forward=fail)
    assert path.read_text() == 'former'
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def without(monkeypatch):
    """Pretend that a package is not installed."""
    find_spec = importlib.util.find_spec

    def hide(name):
        monkeypatch.setattr(
            importlib.util,
            'find_spec',
            lambda n, *args: None if n == name else find_spec(n, *args),
        )

    return hide


def test_without_runtime_the_file_is_not_checked(without, tmp_path):
    without('onnxruntime')
    path = tmp_path / 'a.onnx'
    assert export_onnx(nn.Conv2d(3, 2, 1), (1, 3, 8, 8), str(path)) is None
    assert path.is_file()


def test_without_onnx(without, tmp_path):
    without('onnx')
    with pytest.raises(DMSError, match='pip install onnx'):
        export_onnx(nn.Conv2d(3, 2, 1), (1, 3, 8, 8), str(tmp_path / 'a'))
