"""The package works where only its wheel is installed."""

import os
import os.path as osp
import subprocess
import sys
import zipfile
from glob import glob

import cv2
import numpy as np
import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = 'digits/resnet28_dms-search_1xb64-16e_digits.py'


def _run(*args, **kwargs):
    result = subprocess.run(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with nothing but the content of the wheel."""
    folder = tmp_path_factory.mktemp('site')
    _run(
        *(sys.executable, '-m', 'pip', 'wheel', ROOT, '-q', '--no-deps'),
        *('--no-build-isolation', '-w', str(folder)),
    )
    (wheel,) = glob(str(folder / '*.whl'))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(str(folder))
    return folder


@pytest.fixture()
def images(tmp_path):
    """Twenty random images per split, as files."""
    rng = np.random.RandomState(0)
    for split in ('train', 'val'):
        for label in range(10):
            folder = tmp_path / 'images' / split / str(label)
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = rng.randint(0, 255, (32, 32, 3), np.uint8)
                cv2.imwrite(str(folder / f'{index}.png'), pixels)
    return str(tmp_path / 'images') + '/'


def test_wheel_has_configs_and_tools(site):
    package = site / 'dms_mmrazor'
    assert (package / '.mim/configs' / CONFIG).is_file()
    assert (package / '.mim/tools/train.py').is_file()
    assert (package / '.mim/tools/dist_train.sh').is_file()
    assert not (site / 'tests').exists()


def test_without_compiled_operators(site, tmp_path):
    """The wheel beside torch, mmengine, mmrazor, a lite mmcv and timm.

    There: import, search, export and reload.
    """
    pytest.importorskip('timm', reason='timm is not installed')
    (wheel,) = glob(str(site / '*.whl'))
    log = _run(
        *(sys.executable, osp.join(ROOT, '.dev_scripts/check_lite_env.py')),
        *('--offline', '--wheel', wheel, '--keep', str(tmp_path / 'lite')),
    )
    assert 'searched, exported and reloaded' in log
    assert 'ResNet' in log and 'VisionTransformer' in log


ONE = (sys.executable,)
TWO = (
    *ONE,
    '-m',
    'torch.distributed.run',
    '--standalone',
    '--nproc_per_node=2',
)


@pytest.mark.parametrize('processes', [1, 2])
def test_search_from_the_wheel(processes, site, images, tmp_path):
    """What `mim train dms_mmrazor CONFIG` runs, outside the repository."""
    mim = site / 'dms_mmrazor/.mim'
    launcher = ['--launcher', 'none' if processes == 1 else 'pytorch']
    log = _run(
        *(ONE if processes == 1 else TWO),
        *(str(mim / 'tools/train.py'), *launcher),
        *(str(mim / 'configs' / CONFIG), '--work-dir', str(tmp_path / 'out')),
        *(
            '--cfg-options',
            'train_cfg.max_epochs=1',
            'train_cfg.val_interval=1',
        ),
        f'train_dataloader.dataset.data_root={images}',
        f'val_dataloader.dataset.data_root={images}',
        cwd=str(tmp_path),
        env=dict(os.environ, PYTHONPATH=str(site)),
    )
    assert (tmp_path / 'out/subnet/subnet.yaml').is_file(), log
    assert (tmp_path / 'out/subnet/subnet.pth').is_file()
