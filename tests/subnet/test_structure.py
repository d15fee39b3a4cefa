import copy
import os
import random

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
    load_structure,
    save_structure,
)
from dms_mmrazor.subnet.structure import (
    format_ranges,
    parse_ranges,
    structure_from_dict,
    structure_to_dict,
)

FUZZ = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

EXAMPLE = Structure(
    units=(
        UnitStructure(
            'backbone.conv1',
            8,
            (0, 1, 2, 5),
            (LayerSlice('backbone.conv1', 0, 8),),
            (LayerSlice('head fc', 8, 24),),
        ),
        UnitStructure('true', 4, (3,), (LayerSlice('a', 0, 4),), ()),
    ),
    stages=(
        StageStructure('layer1', ('layer1.1', 'layer1.2'), ('layer1.2',)),
        StageStructure('layer2', ('layer2.1',), ()),
    ),
    layers=3,
    channels=28,
    resources={'macs': {'supernet': 1000, 'subnet': 500, 'ratio': 0.5}},
    search={'seed': 1, 'target': {'macs': 0.5}, 'config': 'name.py'},
    strides={'backbone.conv1': '2', 'pool': '2x1'},
)


def raw_example():
    return copy.deepcopy(structure_to_dict(EXAMPLE))


def assert_one_line(error):
    assert '\n' not in str(error.value)


def test_saving_and_loading_changes_nothing(tmp_path):
    path = str(tmp_path / 'new' / 'subnet.yaml')
    save_structure(EXAMPLE, path)
    assert load_structure(path) == EXAMPLE
    assert os.listdir(os.path.dirname(path)) == ['subnet.yaml']
    assert structure_from_dict(structure_to_dict(EXAMPLE)) == EXAMPLE
    assert EXAMPLE.removed_blocks == ['layer1.1', 'layer2.1']


def test_the_file_is_readable(tmp_path):
    path = tmp_path / 'subnet.yaml'
    save_structure(EXAMPLE, str(path))
    text = path.read_text()
    assert text.startswith('format: dms_mmrazor subnet 1\n')
    assert 'kept: 0-2, 5\n' in text
    assert 'num_kept: 4\n' in text
    assert '- backbone.conv1 0:8\n' in text


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = str(tmp_path / 'subnet.yaml')
    save_structure(EXAMPLE, path)
    with pytest.raises(yaml.YAMLError):
        save_structure(EXAMPLE._replace(search={'x': object()}), path)
    assert load_structure(path) == EXAMPLE
    assert os.listdir(str(tmp_path)) == ['subnet.yaml']


def test_structure_of_a_search_survives_the_file(
    zoo, randomize_structure, tmp_path
):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    path = str(tmp_path / 'subnet.yaml')
    for seed in range(3):
        randomize_structure(mutator, seed)
        structure = mutator.structure(search={'seed': seed})
        save_structure(structure, path)
        assert load_structure(path) == structure


@given(st.sets(st.integers(0, 70), min_size=1))
def test_ranges(numbers):
    indices = tuple(sorted(numbers))
    text = format_ranges(indices)
    assert parse_ranges(text, 71) == indices
    with pytest.raises(ValueError, match='channels'):
        parse_ranges(text, indices[-1])


@pytest.mark.parametrize(
    'text', ['', 'a', '3-1', '1, 1', '5, 2', '1-', '-1', '1.5', '0,,1', None]
)
def test_broken_ranges(text):
    with pytest.raises(ValueError):
        parse_ranges(text, 10)


FIELDS = [
    (('units',), None),
    (('units',), []),
    (('stages',), 'text'),
    (('supernet_layers',), 'many'),
    (('supernet_layers',), 1.5),
    (('supernet_channels',), None),
    (('supernet_channels',), -1),
    (('resources',), 3),
    (('search',), []),
    (('units', 'true', 'size'), 'four'),
    (('units', 'true', 'size'), True),
    (('units', 'true', 'size'), float('inf')),
    (('units', 'true', 'kept'), ''),
    (('units', 'true', 'kept'), '0-4'),
    (('units', 'true', 'kept'), [0, 1]),
    (('units', 'true', 'outputs'), 'a 0:4'),
    (('units', 'true', 'outputs'), ['a']),
    (('units', 'true', 'outputs'), ['a 4:0']),
    (('units', 'true', 'inputs'), ['a 0:x']),
    (('units', 'true', 'inputs'), [' 0:4']),
    (('stages', 'layer1', 'blocks'), 1),
    (('stages', 'layer1', 'kept'), None),
    (('stages', 'layer1', 'kept'), ['layer1.7']),
]


@pytest.mark.parametrize('place, value', FIELDS)
def test_a_broken_field_is_named(tmp_path, place, value):
    raw = raw_example()
    part = raw
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path = tmp_path / 'subnet.yaml'
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(DMSError) as error:
        load_structure(str(path))
    message = str(error.value)
    assert str(path) in message and f'`{place[-1]}`' in message
    assert all(f"'{name}'" in message for name in place[1:-1])
    assert_one_line(error)


@pytest.mark.parametrize(
    'place', sorted({place for place, _ in FIELDS}), ids='.'.join
)
def test_a_missing_field_is_named(place):
    raw = raw_example()
    part = raw
    for key in place[:-1]:
        part = part[key]
    del part[place[-1]]
    with pytest.raises(DMSError, match=f"no field '{place[-1]}'") as error:
        structure_from_dict(raw, 'file.yaml')
    assert 'file.yaml' in str(error.value)
    assert_one_line(error)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\xff\xfe\x00',
        b'{]',
        b'just text',
        b'- a\n- b\n',
        b'format: dms_mmrazor subnet 2\n',
        b'format: dms_mmrazor subnet 1\n',
        b'format: 2020-99-99\n',
        b'format: !!int x\n',
        b'format: !!float x\n',
        b'format: !!bool x\n',
        b'format: !!timestamp x\n',
        b'format: !!python/object:os.system {}\n',
        b'? [a, b]\n: c\n',
        b'[' * 1500,
        b'[' * 1500 + b']' * 1500,
        b'a: &a [*a]\n',
        b'1' * 5000,
    ],
)
def test_other_files(tmp_path, content):
    path = tmp_path / 'subnet.yaml'
    path.write_bytes(content)
    with pytest.raises(DMSError, match='subnet.yaml') as error:
        load_structure(str(path))
    assert_one_line(error)


def test_no_file(tmp_path):
    wrong = {tmp_path / 'none.yaml': 'does not exist', tmp_path: 'is a folder'}
    for path, why in wrong.items():
        with pytest.raises(DMSError, match=why):
            load_structure(str(path))


def check(load):
    """Loading gives a structure or a mistake of one line."""
    try:
        assert isinstance(load(), Structure)
    except DMSError as error:
        assert '\n' not in str(error)


@FUZZ
@given(st.binary(max_size=200))
def test_fuzzed_bytes(tmp_path, content):
    path = tmp_path / 'subnet.yaml'
    path.write_bytes(b'format: dms_mmrazor subnet 1\n' + content)
    check(lambda: load_structure(str(path)))


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(['0-3', '1, 2', 'a 0:4', 'layer1.1', '0-99999999'])
    | st.dates()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(LEAVES.filter(lambda k: k == k), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(part, prefix=()):
    """Paths to everything in nested dicts and lists."""
    items = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*prefix, key))


@FUZZ
@given(st.data())
def test_fuzzed_fields(data):
    raw = raw_example()
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(places(raw))))
        part = raw
        for key in path:
            part = part[key]
        part[last] = data.draw(VALUES)
    check(lambda: structure_from_dict(raw))


@FUZZ
@given(VALUES)
def test_fuzzed_values(raw):
    check(lambda: structure_from_dict(raw))


@FUZZ
@given(seed=st.integers(0, 2**32), edits=st.integers(1, 8))
def test_fuzzed_files(tmp_path, seed, edits):
    """Characters of a real file are changed, removed or doubled."""
    rng = random.Random(seed)
    text = list(yaml.safe_dump(raw_example(), sort_keys=False))
    for _ in range(edits):
        index = rng.randrange(len(text))
        text[index] = rng.choice(
            ['', text[index] * 2, *'0:-[]{}&*!#|>,\'"\n\t %@`\x00é']
        )
    path = tmp_path / 'subnet.yaml'
    path.write_text(''.join(text), encoding='utf-8')
    check(lambda: load_structure(str(path)))
