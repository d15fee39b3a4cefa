"""The arrows of import run one way, and patches stay in one place."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = 'dms_mmrazor'

# A layer may import those that stand after it.
LAYERS = [
    'configs',
    'plugin',
    'ranking',
    'baselines',
    'cli',
    'apis',
    'engine',
    'visualization',
    'plugins.transformers',
    'models',
    'models.algorithms',
    'search',
    'latency',
    'models.enlarge',
    'models.mutators',
    'supernet',
    'models.units',
    'subnet',
    'plugins',
    'graph',
    'layers',
    'models.mutables',
    'baselines.masks',
    'baselines.learned_masks',
    'core',
    'registry',
    'compat',
    'files',
    'errors',
    'type_names',
    'version',
]


class Source:
    """One file of the package, read but not imported."""

    def __init__(self, path):
        parts = path.relative_to(ROOT).with_suffix('').parts
        self.path = path
        self.is_package = parts[-1] == '__init__'
        self.module = '.'.join(parts[:-1] if self.is_package else parts)
        self.tree = ast.parse(path.read_text(encoding='utf-8'))

    @property
    def layer(self):
        return layer_of(self.module)

    def imports(self):
        """Full names of all that is imported, local names beside them."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    local = alias.asname or alias.name.split('.')[0]
                    yield alias.name, local
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                for alias in node.names:
                    name = f'{base}.{alias.name}' if base else alias.name
                    yield name, alias.asname or alias.name

    def _base(self, node):
        if not node.level:
            return node.module
        above = node.level - 1 if self.is_package else node.level
        parts = self.module.split('.')
        parts = parts[: len(parts) - above]
        return '.'.join([*parts, *filter(None, [node.module])])


def layer_of(module):
    """Layer of a module of the package; '' for the package itself."""
    inner = module.split('.')[1:]
    for depth in (2, 1):
        if '.'.join(inner[:depth]) in LAYERS:
            return '.'.join(inner[:depth])
    return ''


def load_sources():
    paths = sorted((ROOT / PACKAGE).rglob('*.py'))
    return [Source(path) for path in paths if '.mim' not in path.parts]


SOURCES = load_sources()
MODULES = {source.module: source for source in SOURCES}


def own_imports(source):
    """Modules of the package that a file imports."""
    for name, _ in source.imports():
        if name.split('.')[0] == PACKAGE:
            yield name if name in MODULES else name.rpartition('.')[0]


def test_every_file_has_a_layer():
    without = [s.module for s in SOURCES if not s.layer]
    assert without == [PACKAGE]


@pytest.mark.parametrize('layer', LAYERS)
def test_arrows_run_one_way(layer):
    below = LAYERS[LAYERS.index(layer) :]
    wrong = [
        f'{source.module} imports {name}'
        for source in SOURCES
        if source.layer == layer
        for name in own_imports(source)
        if layer_of(name) not in below
    ]
    assert not wrong


def test_no_file_imports_itself_through_others():
    arrows = {
        source.module: {
            name
            for name in own_imports(source)
            # `from package import module` needs the package's own file only
            # as far as it has come.
            if not source.module.startswith(f'{name}.')
        }
        for source in SOURCES
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, ' -> '.join([*path, module])
        if module in done:
            return
        path.append(module)
        for name in sorted(arrows[module]):
            visit(name)
        done.add(path.pop())

    for module in arrows:
        visit(module)


def test_nothing_imports_what_uses_the_package():
    users = {'tools', 'configs', 'demo', 'tests', 'setup'}
    assert not [
        source.module
        for source in SOURCES
        for name, _ in source.imports()
        if name.split('.')[0] in users
    ]


def test_the_core_imports_torch_alone():
    allowed = {PACKAGE, 'itertools', 'math', 'torch', 'types', 'typing'}
    found = {
        name.split('.')[0]
        for source in SOURCES
        if source.layer == 'core'
        for name, _ in source.imports()
    }
    assert found <= allowed
    for source in SOURCES:
        if source.layer == 'core':
            assert all(layer_of(n) == 'core' for n in own_imports(source))


def test_the_package_itself_imports_nothing():
    """So that ``setup.py`` and ``mim`` can look at it at no cost."""
    names = {name for name, _ in MODULES[PACKAGE].imports()}
    standard = {'importlib.import_module', 'typing.Any'}
    assert names - standard == {f'{PACKAGE}.version.__version__'}
    assert not list(MODULES[f'{PACKAGE}.version'].imports())


def test_mmrazor_is_imported_after_its_workaround():
    """Rooms that import it begin with the registry, which applies it."""
    rooms = {
        source.module.split('.')[1]
        for source in SOURCES
        if any(name.split('.')[0] == 'mmrazor' for name, _ in source.imports())
    } - {'compat', 'registry'}
    assert rooms == {'graph', 'layers', 'models', 'supernet'}
    for room in rooms:
        first = next(iter(own_imports(MODULES[f'{PACKAGE}.{room}'])))
        assert first == f'{PACKAGE}.registry'
    text = MODULES[f'{PACKAGE}.registry'].path.read_text(encoding='utf-8')
    assert text.index('compat.apply()') < text.index('from mmrazor')


def patches(source):
    """Places where a file changes something of another package."""
    foreign = {
        local
        for name, local in source.imports()
        if name.split('.')[0] != PACKAGE
    }
    for node in ast.walk(source.tree):
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.Call):
            name = getattr(node.func, 'id', '')
            if name in ('setattr', 'delattr') and node.args:
                targets = [node.args[0]]
                if root(targets[0]) in foreign:
                    yield node.lineno
                continue
        for target in targets:
            is_part = isinstance(target, (ast.Attribute, ast.Subscript))
            if is_part and root(target) in foreign:
                yield node.lineno


def root(node):
    """Name that a chain of attributes and subscripts begins with."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return getattr(node, 'id', None)


def test_only_compat_patches_other_packages():
    found = {
        source.layer: [f'{source.module}:{line}' for line in patches(source)]
        for source in SOURCES
        if list(patches(source))
    }
    assert set(found) == {'compat'}, found


def test_names_that_have_gone_say_where():
    from dms_mmrazor import apis

    for name, place in apis.PLACES.items():
        assert hasattr(import_module(f'dms_mmrazor.{place}'), name)
        with pytest.raises(ImportError, match=f'{place} import {name}'):
            apis.__getattr__(name)
    with pytest.raises(ImportError, match='CHANGELOG'):
        from dms_mmrazor.apis import coverage  # noqa: F401
