"""The core must stay usable, and readable, without any framework."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib.abc
import sys


def is_framework(name):
    # mmap is part of Python's standard library.
    return name.startswith('mm') and name.split('.')[0] != 'mmap'


class Blocker(importlib.abc.MetaPathFinder):

    def find_spec(self, name, path=None, target=None):
        if is_framework(name):
            raise ImportError(f'the core imports {name}')


sys.meta_path.insert(0, Blocker())
import dms_mmrazor.core
found = [name for name in sys.modules if is_framework(name)]
assert not found, found
"""


def test_core_imports_no_framework():
    subprocess.run([sys.executable, '-c', SCRIPT], check=True, cwd=str(ROOT))


def test_public_names_exist():
    import dms_mmrazor.core as core

    assert all(hasattr(core, name) for name in core.__all__)
