import pytest

from dms_mmrazor.errors import DMSError
from dms_mmrazor.search.targets import (
    as_targets,
    check_reachable,
)
from dms_mmrazor.supernet.resources import RESOURCES

MACS, LATENCY = RESOURCES['macs'], RESOURCES['latency']


@pytest.mark.parametrize(
    'target, expected',
    [
        (0.5, 2e9),
        (1, 4e9),
        (1.0, 4e9),
        ('0.25', 1e9),
        ('1', 4e9),
        ('1G', 1e9),
        ('1.5 G', 1.5e9),
        (' 300M ', 3e8),
        ('2K', 2e3),
        ('.5G', 5e8),
        ('4e8', 4e8),
        (4.1e8, 4.1e8),
        (1000, 1000.0),
    ],
)
def test_what_users_write(target, expected):
    assert MACS.parse(target, 4e9) == pytest.approx(expected)


@pytest.mark.parametrize(
    'target, expected',
    [(0.5, 2), (1, 4), ('0.5', 2), ('3ms', 3), ('800us', 0.8), (2.5, 2.5)],
)
def test_latencies_are_in_milliseconds(target, expected):
    got = LATENCY.parse(target, 4.0)
    assert got == pytest.approx(expected)


@pytest.mark.parametrize('target', ['3G', '3M', '3 min', 'ms', -1])
def test_no_latency(target):
    with pytest.raises(DMSError, match="absolute such as '3ms'") as error:
        LATENCY.parse(target, 4.0, 'key')
    assert repr(target) in str(error.value)


@pytest.mark.parametrize(
    'target',
    [
        0,
        -1,
        0.0,
        float('nan'),
        float('inf'),
        True,
        None,
        [1],
        '',
        'half',
        '1T',
        '1g',
        '-1G',
        '1G1',
        '0',
        '0G',
        '1e999',
    ],
)
def test_what_cannot_be_meant(target):
    with pytest.raises(DMSError, match='`key` must be a ratio') as error:
        MACS.parse(target, 4e9, 'key')
    assert repr(target) in str(error.value)
    assert '\n' not in str(error.value)


def test_reachable_targets():
    for target in (1e9, 4e9, 2e9):
        check_reachable('macs', target, 4e9, 1e9, 'key')


@pytest.mark.parametrize(
    'target, words',
    [
        (5e9, ['`key`', '5G', 'macs', 'more than', '4G', 'smallest', '1.2G']),
        (1e9, ['`key`', '1G', 'macs', 'cannot be reached', '1.2G', '4G']),
    ],
)
def test_targets_outside_the_search_space(target, words):
    with pytest.raises(DMSError) as error:
        check_reachable('macs', target, 4e9, 1.2e9, 'key')
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    'value, text',
    [
        (4.1e9, '4.1G'),
        (59687552, '59.69M'),
        (1234, '1.234K'),
        (12, '12'),
        (0, '0'),
    ],
)
def test_format(value, text):
    assert MACS.format(value) == text


def test_targets_by_kind():
    assert as_targets(0.5, 'params') == {'params': 0.5}
    both = {'macs': 0.5, 'params': '1M'}
    assert as_targets(both, 'macs') == both


def test_a_latency_has_its_unit():
    assert LATENCY.format(3.31415) == '3.314ms'
    with pytest.raises(DMSError, match='2ms latency cannot .* 2.5ms'):
        check_reachable('latency', 2.0, 4.0, 2.5, 'key')
