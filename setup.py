"""Packaging in OpenMMLab's manner, so that ``pip`` and ``mim`` both work."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).resolve().parent
PACKAGE = 'dms_mmrazor'
# What `mim train/test/run dms_mmrazor` looks for in `dms_mmrazor/.mim`.
MIM_RESOURCES = ('configs', 'tools', 'model-index.yml')


def get_version():
    """Read the version without importing the package."""
    scope = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def readme():
    """Return the text of the README, or nothing where there is none yet."""
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


def parse_requirements(name):
    """Return the requirements in ``requirements/<name>.txt``."""
    path = ROOT / 'requirements' / f'{name}.txt'
    lines = path.read_text(encoding='utf-8').splitlines()
    lines = (line.split('#')[0].strip() for line in lines)
    return [line for line in lines if line]


def remove(path):
    """Remove a file, a link or a folder, if there is one."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(str(path))


def copy(source, target):
    """Copy a file or a folder, without what Python leaves behind."""
    if source.is_dir():
        ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]')
        shutil.copytree(str(source), str(target), ignore=ignore)
    else:
        shutil.copyfile(str(source), str(target))


def add_mim_extension(package_path, mode):
    """Put what MIM needs into the folder ``.mim`` of a package.

    Args:
        package_path (Path): The package, in the source tree or in a build.
        mode (str): ``symlink`` for an editable installation, so that edits
            are seen at once, or ``copy``.
    """
    mim_path = Path(package_path) / '.mim'
    mim_path.mkdir(parents=True, exist_ok=True)
    for name in MIM_RESOURCES:
        source, target = ROOT / name, mim_path / name
        remove(target)
        if not source.exists():
            continue
        if mode == 'symlink':
            try:
                target.symlink_to(os.path.relpath(str(source), str(mim_path)))
                continue
            except OSError:
                # Windows may not allow links.
                pass
        copy(source, target)


class BuildPy(build_py):
    """Copy MIM's resources into a build: the source tree stays clean."""

    def run(self):
        """Build, then add the resources."""
        super().run()
        if getattr(self, 'editable_mode', False):
            add_mim_extension(ROOT / PACKAGE, 'symlink')
        else:
            add_mim_extension(Path(self.build_lib) / PACKAGE, 'copy')


class Develop(develop):
    """Link MIM's resources for setuptools that still know ``develop``."""

    def run(self):
        """Install in place, then add the resources."""
        super().run()
        add_mim_extension(ROOT / PACKAGE, 'symlink')


EXTRAS = {
    'gguf': parse_requirements('gguf'),
    'llama': parse_requirements('llama'),
    'lora': parse_requirements('lora'),
    'mim': parse_requirements('mminstall'),
    'optional': parse_requirements('optional'),
    'tests': parse_requirements('tests'),
    'timm': parse_requirements('timm'),
}
EXTRAS['all'] = sum(EXTRAS.values(), [])
EXTRAS['benchmarks'] = parse_requirements('benchmarks')
EXTRAS['segmentation'] = parse_requirements('segmentation')

setup(
    name=PACKAGE,
    version=get_version(),
    description='Differentiable Model Scaling for MMRazor',
    long_description=readme(),
    long_description_content_type='text/markdown',
    keywords='model compression, pruning, architecture search, OpenMMLab',
    license='Apache-2.0',
    python_requires='>=3.8',
    packages=find_packages(include=(PACKAGE, f'{PACKAGE}.*')),
    cmdclass={'build_py': BuildPy, 'develop': Develop},
    install_requires=parse_requirements('runtime'),
    extras_require=EXTRAS,
    zip_safe=False,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
