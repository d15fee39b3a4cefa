import math

import pytest
import yaml

from dms_mmrazor.errors import DMSError
from dms_mmrazor.latency import load_latency_table, save_latency_table


@pytest.fixture
def path(table, tmp_path):
    path = str(tmp_path / 'tables' / 'latency.yaml')
    save_latency_table(table, path)
    return path


def test_a_table_comes_back(table, path):
    again = load_latency_table(path)
    assert again.device == table.device
    assert again.input_size == table.input_size
    assert again.divisor == table.divisor
    assert again.rounds == table.rounds
    assert again.supernet == pytest.approx(table.supernet, rel=1e-4)
    assert list(again.rounding) == list(table.rounding)
    assert again.held_out['structures'] == 3
    for new, old in zip(again.kinds, table.kinds):
        assert (new.name, new.layers) == (old.name, old.layers)
        assert new.channels == old.channels
        assert new.fit.full == pytest.approx(old.fit.full, rel=1e-5)
        assert new.fit.shares == pytest.approx(old.fit.shares, abs=1e-5)
        widths = [point[:2] for point in old.points]
        assert [point[:2] for point in new.points] == widths
    assert len(again.kinds) == len(table.kinds)


def test_saving_again_changes_nothing(path, tmp_path):
    other = tmp_path / 'other.yaml'
    save_latency_table(load_latency_table(path), str(other))
    with open(path) as file:
        assert other.read_text() == file.read()


def test_people_can_read_it(path):
    with open(path) as file:
        lines = file.read().splitlines()
    assert lines[0] == 'format: dms_mmrazor latency 1'
    assert '    shares: {constant: ' in '\n'.join(lines)
    assert 'input_size: [1, 3, 32, 32]' in lines


BROKEN = {
    'format': (('format',), 'dms_mmrazor latency 9', 'latency 1`'),
    'no kinds': (('kinds',), None, '`kinds`'),
    'kinds': (('kinds',), [1], 'not a mapping'),
    'device': (('device', 'type'), 'tpu', "'tpu'"),
    'threads': (('device', 'threads'), 0, '`threads`'),
    'size': (('input_size',), [1, 3, 32], 'list of 4'),
    'batch': (('input_size',), [0, 3, 32, 32], 'at least 1'),
    'divisor': (('divisor',), 'eight', "'eight'"),
    'bool': (('divisor',), True, 'True'),
    'supernet': (('supernet',), -1.0, 'not positive'),
    'infinite': (('supernet',), math.inf, 'not finite'),
    'nan': (('supernet',), math.nan, 'not finite'),
    'held_out': (('held_out',), {'mean': 0.1}, 'held_out'),
    'rounding': (('rounding',), {'eight': 1.0}, "'eight'"),
    'ratio': (('rounding',), {8: 0}, 'not positive'),
    'full': (('kinds', 0, 'full'), 0, 'not positive'),
    'negative': (('kinds', 0, 'shares', 'input'), -0.5, 'negative'),
    'sum': (('kinds', 0, 'shares', 'input'), 7.0, 'sum of `shares`'),
    'words': (('kinds', 0, 'shares'), 'many', 'not a mapping'),
    'layers': (('kinds', 0, 'layers'), [], 'list of layers'),
    'channels': (('kinds', 0, 'channels'), [3], 'list of 2'),
    'points': (('kinds', 0, 'points'), [[1, 2]], 'list of 3'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_fields_are_named(name, path):
    keys, value, text = BROKEN[name]
    with open(path) as file:
        raw = yaml.safe_load(file)
    part = raw
    for key in keys[:-1]:
        part = part[list(part)[key] if key == 0 else key]
    part[keys[-1]] = value
    with open(path, 'w') as file:
        yaml.safe_dump(raw, file)
    with pytest.raises(DMSError) as error:
        load_latency_table(path)
    assert text in str(error.value) and path in str(error.value)
    assert '\n' not in str(error.value)


def test_missing_fields_are_named(path):
    with open(path) as file:
        whole = yaml.safe_load(file)
    for key in list(whole)[1:]:
        part = {k: v for k, v in whole.items() if k != key}
        with open(path, 'w') as file:
            yaml.safe_dump(part, file)
        with pytest.raises(DMSError, match=f"no field '{key}'"):
            load_latency_table(path)


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(DMSError, match='does not exist'):
        load_latency_table(str(tmp_path / 'none.yaml'))
    path = tmp_path / 'other.yaml'
    for text in ('', '- 1\n', 'format: dms_mmrazor subnet 1\n', '\x00'):
        path.write_text(text)
        with pytest.raises(DMSError, match='other.yaml'):
            load_latency_table(str(path))


def test_nothing_in_a_table_is_run(tmp_path):
    path = tmp_path / 'hostile.yaml'
    mark = tmp_path / 'was_here'
    path.write_text(f'format: !!python/object/apply:os.mkdir [{mark}]\n')
    with pytest.raises(DMSError, match='cannot be read as YAML'):
        load_latency_table(str(path))
    assert not mark.exists()
