import subprocess
import sys

PROGRAM = """
from mmengine.config import Config
{imports}
cfg = Config.fromfile({path!r})
assert cfg.algorithm.type == 'mmrazor.DMSAlgorithm'
"""


def _open_config(tmp_path, imports):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'dms_mmrazor::_base_/pipelines/pretrained.py'\n")
    program = PROGRAM.format(imports=imports, path=str(path))
    return subprocess.run(
        [sys.executable, '-c', program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=str(tmp_path),
    )


def test_stock_mmengine_refuses_the_package(tmp_path):
    result = _open_config(tmp_path, '')
    assert 'does not support to load dms_mmrazor config' in result.stdout


def test_configs_can_be_inherited(tmp_path):
    result = _open_config(tmp_path, 'import dms_mmrazor.plugin')
    assert result.returncode == 0, result.stdout
