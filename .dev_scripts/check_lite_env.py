"""Search, export and reload in an environment without a compiled mmcv.

    python .dev_scripts/check_lite_env.py [--offline] [--keep FOLDER]

Builds the wheel of this package and an environment of pure-Python wheels
beside the torch of this one: mmengine, mmrazor, mmcv-lite and timm. Then
searches a model of torchvision and one of timm there. Takes a minute or two,
most of it downloads and imports. With `--offline` nothing is downloaded:
these packages are those of this environment, mmcv without what was compiled,
which is all that mmcv-lite lacks.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
OURS = ('dms_mmrazor', '__editable__', 'easy-install')
HIDDEN = (*OURS, 'mm', 'timm')
LIBRARIES = (*OURS, 'mmcv', 'mmdet', 'mmpose', 'mmpretrain', 'mmseg', 'mmyolo')
PACKAGES = ('mmengine==0.10.7', 'mmrazor==1.0.0', 'mmcv-lite==2.1.0', 'timm')
CHECK = """
import sys
import torch
import torch.nn.functional as F
from dms_mmrazor import Search, apply_structure
import timm
import torchvision

assert not [name for name in sys.modules if name.startswith('mmcv.ops')]
assert 'site-packages/dms_mmrazor' in sys.modules['dms_mmrazor'].__file__
makers = (
    lambda: torchvision.models.resnet18(num_classes=4),
    lambda: timm.create_model(
        'vit_tiny_patch16_224', img_size=32, depth=2, num_classes=4
    ),
)
for make in makers:
    search = Search(make(), torch.rand(1, 3, 32, 32), 0.5, 4)
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    for _ in range(4):
        images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
        F.cross_entropy(search.model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    subnet = search.export('subnet.yaml')
    assert subnet.difference <= 1e-5, subnet.difference
    fresh = apply_structure(make(), 'subnet.yaml')
    fresh.load_state_dict(subnet.model.state_dict())
    print(type(fresh).__name__, subnet.structure.resources['macs'])
"""


def pip(python: str, *args: str) -> None:
    """Run an environment's pip."""
    command = [python, '-m', 'pip', '-q', '--disable-pip-version-check']
    subprocess.run([*command, *args], check=True)


def link_packages(folder: Path, hidden: Tuple[str, ...]) -> None:
    """Make the packages of this environment visible.

    Args:
        folder (Path): Where.
        hidden (tuple[str]): How the names of others begin.
    """
    folder.mkdir()
    paths = sysconfig.get_paths()
    for site in dict.fromkeys((paths['purelib'], paths['platlib'])):
        for entry in Path(site).iterdir():
            if not entry.name.lower().startswith(hidden):
                (folder / entry.name).symlink_to(entry)


def link_lite_mmcv(folder: Path) -> None:
    """mmcv without what was compiled, as mmcv-lite is."""
    import mmcv

    folder.mkdir()
    for entry in Path(mmcv.__file__).parent.iterdir():
        if not entry.name.startswith('_ext'):
            (folder / entry.name).symlink_to(entry)


def build(folder: Path, offline: bool, wheel: Optional[str]) -> Path:
    """An environment with this package; its interpreter.

    Args:
        folder (Path): Where.
        offline (bool): Whether nothing is downloaded.
        wheel (str, optional): Of this package; None: it is built.
    """
    venv.create(folder / 'env', with_pip=not offline)
    python = folder / 'env' / 'bin' / 'python'
    if wheel is None:
        options = ('--no-deps', '--no-build-isolation', '-w', str(folder))
        pip(sys.executable, 'wheel', *options, str(ROOT))
        (found,) = folder.glob('dms_mmrazor-*.whl')
        wheel = str(found)
    (site,) = (folder / 'env').glob('lib/python*/site-packages')
    link_packages(folder / 'others', LIBRARIES if offline else HIDDEN)
    if offline:
        link_lite_mmcv(folder / 'others' / 'mmcv')
        options = ('--no-deps', '--no-index', '--target', str(site))
        pip(sys.executable, 'install', *options, wheel)
    else:
        pip(str(python), 'install', '--no-deps', *PACKAGES, wheel)
    (site / 'others.pth').write_text(f'{folder / "others"}\n')
    return python


def main() -> None:
    """Build the environment and search in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--keep', help='where to leave the environment')
    parser.add_argument('--wheel', help='of this package; built by default')
    parser.add_argument(
        '--offline', action='store_true', help='download nothing'
    )
    args = parser.parse_args()
    started = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        python = build(folder, args.offline, args.wheel)
        print(f'built in {time.time() - started:.0f} s')
        environment = {
            k: v for k, v in os.environ.items() if k[:6] != 'PYTHON'
        }
        subprocess.run(
            [str(python), '-W', 'ignore', '-c', CHECK],
            cwd=str(folder),
            env=environment,
            check=True,
        )
    print(
        f'searched, exported and reloaded after {time.time() - started:.0f} s'
    )


if __name__ == '__main__':
    main()
