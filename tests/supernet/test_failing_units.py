from fnmatch import fnmatch

import pytest

from dms_mmrazor.supernet.failing_units import (
    as_patterns,
    find_failing_units,
)

NAMES = [f'layers.{i}.{part}' for i in range(6) for part in ('a', 'b', 'c')]


def selects(pattern):
    return [name for name in ['x', *NAMES] if fnmatch(name, pattern)]


@pytest.mark.parametrize(
    'bad, trials',
    [
        (['layers.3.b'], 8),
        (['x'], 6),
        (['x', 'layers.0.c'], 12),
        ([f'layers.{i}.b' for i in range(6)], 16),
        (NAMES, 42),
    ],
)
def test_the_smallest_set_is_found(bad, trials):
    tried = []

    def fails(names):
        tried.append(names)
        return bool(set(bad) & set(names))

    assert sorted(find_failing_units(['x', *NAMES], fails)) == sorted(bad)
    assert len(tried) <= trials


def test_of_those_that_fail_only_together_one_is_blamed():
    def fails(names):
        return {'one', 'three'} <= set(names)

    names = ['one', 'two', 'three', 'four']
    assert find_failing_units(names, fails) == ['three']


def test_what_takes_too_long_is_blamed_together():
    names = [chr(200 + index) for index in range(500)]
    tried = []

    def fails(some):
        tried.append(some)
        return bool(some)

    guilty = find_failing_units(names, fails)
    assert sorted(guilty) == sorted(names)
    assert len(tried) < 170


def test_patterns_are_short_and_spare_the_innocent():
    guilty = [f'layers.{index}.b' for index in range(6)]
    assert as_patterns(guilty, NAMES, selects) == ['layers.*.b']
    guilty = ['layers.0.a', 'layers.1.a', 'x']
    assert as_patterns(guilty, NAMES, selects) == guilty
