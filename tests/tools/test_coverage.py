"""The table of coverage: its cases have configs, and its rows are read."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.registry import MODELS

from dms_mmrazor.errors import DMSError

TOOLS = Path(__file__).parents[2] / 'tools' / 'analysis_tools'
NAMES = (
    'search_coverage',
    'coverage_models',
    'coverage_plain',
    'coverage_tables',
)

ENVIRONMENT = dict(seed=0, structures=1, machine='none')


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield import_module('search_coverage')
    for name in NAMES:
        sys.modules.pop(name, None)


def test_every_case_has_a_config(tool):
    assert len(tool.CASES) == sum(map(len, tool.SECTIONS.values()))
    for name, case in tool.CASES.items():
        architecture = tool.load_architecture(case)
        kind = f'{case.scope}.{architecture["type"]}'
        assert MODELS.get(kind) is not None, name


def test_a_row_is_measured_written_and_kept(tool, tmp_path, monkeypatch):
    results, table = tmp_path / 'c.json', tmp_path / 'c.md'
    command = ['search_coverage.py', '--results', str(results)]
    command += ['--table', str(table), '--structures', '1']
    monkeypatch.setattr(sys, 'argv', [*command, '--only', 'ResNet-18'])
    tool.main()
    (line,) = [x for x in table.read_text().splitlines() if '| ResNet' in x]
    cells = [cell.strip() for cell in line.split('|')[1:-1]]
    assert cells[:4] == ['ResNet-18, 224²', '21 / 21', '12', '1']
    assert '1.814 G, 0.00 %' in cells
    assert 'depth of `backbone.layer*` (3): its 1' in table.read_text()
    assert cells[-1] == 'own loss'
    monkeypatch.setattr(tool, 'CASES', {'ResNet-18': None})
    monkeypatch.setattr(sys, 'argv', command)
    before = results.read_bytes()
    tool.main()
    assert results.read_bytes() == before


def test_plain_models_are_known_to_their_library(tool):
    torchvision = pytest.importorskip('torchvision').models
    timm = pytest.importorskip('timm', reason='timm is not installed')
    for case in tool.PLAIN_CASES.values():
        if case.library == 'timm':
            assert timm.is_model(case.model), case.model
        elif case.library == 'torchvision':
            places = torchvision, torchvision.segmentation, torchvision.video
            assert any(hasattr(p, case.model) for p in places), case.model
    assert len(tool.PLAIN_SECTIONS['timm']) >= 25
    assert len(tool.PLAIN_SECTIONS['torchvision']) >= 15


def test_a_row_of_a_plain_model(tool, tmp_path, monkeypatch):
    pytest.importorskip('torchvision')
    results, table = tmp_path / 'c.json', tmp_path / 'c.md'
    command = ['search_coverage.py', '--plain', '--structures', '1']
    command += ['--results', str(results), '--table', str(table)]
    name = 'torchvision resnet18'
    monkeypatch.setattr(sys, 'argv', [*command, '--only', name])
    tool.main()
    lines = table.read_text().splitlines()
    (line,) = [x for x in lines if x.startswith(f'| {name}')]
    cells = [cell.strip() for cell in line.split('|')[1:-1]]
    assert cells[:4] == [f'{name}, 64²', 'fully', '21 / 21', '12']
    assert cells[-1] == 'outputs'


def test_what_cannot_be_searched_says_why(tool, monkeypatch):
    def stop(*args):
        raise DMSError('exclude that')

    monkeypatch.setattr(tool, 'measure_coverage', stop)
    row = tool.measure(tool.CASES['ResNet-18'], 1, 0)
    assert row['error'] == 'exclude that'
    row['environment'] = ENVIRONMENT
    page = import_module('coverage_tables').render({'VGG-11': row})
    assert 'stops: exclude that' in page


def test_advice_is_followed_and_told(tool, monkeypatch):
    whole = tool.measure_coverage
    case = tool.CASES['ResNet-18']._replace(size=32, structures=1)

    def stop(architecture, size, mutator, *args):
        if 'backbone.conv1' not in mutator.get('exclude', ()):
            raise DMSError("Search by `mutator.exclude=['backbone.conv1']`.")
        return whole(architecture, size, mutator, *args)

    monkeypatch.setattr(tool, 'measure_coverage', stop)
    row = tool.measure(case, 10, 0)
    assert row['excluded'] == ['backbone.conv1'] and row['searched'] > 15
    assert row['agreement']['structures'] == 1
    row['environment'] = ENVIRONMENT
    page = import_module('coverage_tables').render({'VGG-11': row})
    assert "by `exclude=['backbone.conv1']`" in page
    assert 'stopped at first: Search by' in page


def test_layers_that_differ_in_numbers_are_one_line(tool):
    families = import_module('coverage_tables')._families
    pairs = [
        (f'layers.{i}.proj', f'it loses 3 at layers.{i}') for i in range(12)
    ]
    assert list(families(pairs)) == [
        ('`layers.*.proj` (12)', 'it loses 3 at layers.*')
    ]
    assert list(families([('conv1', 'min_blocks=1')])) == [
        ('`conv1`', 'min_blocks=1')
    ]


def test_a_row_that_takes_too_long_is_given_up(tool, monkeypatch):
    argv = ['search_coverage.py', '--only', 'ResNet-18', '--limit', '0']
    monkeypatch.setattr(sys, 'argv', argv)
    row = tool.measure_apart(tool.CASES['ResNet-18'], tool.parse_args())
    assert row == dict(failure='not ready after 0 s')
