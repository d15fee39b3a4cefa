import pytest

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ChannelGroup
from dms_mmrazor.graph.channel_groups import Side
from dms_mmrazor.supernet.search_space import (
    check_names,
    exclude_groups,
    matches,
    merge_args,
    selected_units,
    split_unit_cfg,
)


def group(name, *readers, reason='', givers=None):
    sides = [Side(giver, 0, 8, True) for giver in givers or [name]]
    sides += [Side(reader, 0, 8, False) for reader in readers]
    return ChannelGroup(name, 8, tuple(sides), reason)


def test_unknown_names_show_close_ones():
    known = ['backbone.layer1', 'backbone.layer2', 'head.fc']
    with pytest.raises(DMSError) as error:
        check_names('key', ['backbone.layr2'], known)
    message = str(error.value)
    assert '`key`' in message and "'backbone.layr2'" in message
    assert message.index("'backbone.layer2'") < message.index("layer1'")
    check_names('key', ['*layer?', 'head.fc'], known)
    with pytest.raises(DMSError, match='neck'):
        check_names('key', ['*layer?', 'neck.*'], known)


@pytest.mark.parametrize(
    'pattern, units',
    [
        ('b', ['b']),  # the unit, not those that a layer of its name reads
        ('b.add', ['b']),
        ('head', ['b', 'x']),  # gives no unit: those that it reads
        ('x', ['x']),
        ('x[0:4]', ['x[0:4]']),
        ('x[*:*]', ['x[0:4]']),
        ('x*', ['x', 'x[0:4]']),
        ('?', ['a', 'b', 'x']),
        ('y', []),
    ],
)
def test_what_a_name_stands_for(pattern, units):
    groups = [
        group('a', 'b', 'x'),
        group('b', 'head', givers=['b', 'b.add']),
        group('x', 'head'),
        group('x[0:4]', 'b', givers=['x']),
        group('head', reason='output'),
    ]
    assert sorted(set(selected_units(pattern, groups, []))) == units


def test_brackets_are_part_of_names():
    assert matches('a.0.conv[0:8]', 'a.*.conv[*:*]')
    assert not matches('a.0.conv0', 'a.*.conv[0-9]')


def test_excluded_groups_have_a_reason():
    groups = [group('a', 'b'), group('b', 'c'), group('d', reason='why')]
    found = exclude_groups(groups, ['b', 'd'], width=True)
    excluded = 'excluded by `mutator.exclude`'
    assert [g.reason for g in found] == ['', excluded, 'why']
    found = exclude_groups(groups, [], width=False)
    assert 'channel_unit_cfg=None' in found[0].reason
    assert found[2].reason == 'why'


def test_later_patterns_win():
    units = {
        'a.*': dict(init_args=dict(step=2, min_ratio=0.5)),
        'a.b': dict(init_args=dict(step=4)),
        'c': {},
    }
    assert merge_args('a.b', dict(step=1), units) == dict(
        step=4, min_ratio=0.5
    )
    assert merge_args('c', dict(step=1), units) == dict(step=1)


def test_unit_configs():
    assert split_unit_cfg('key', None) == ('', {}, {})
    cfg = dict(type='A', default_args=dict(b=1), units=dict(c={}))
    assert split_unit_cfg('key', cfg) == ('A', dict(b=1), dict(c={}))
    with pytest.raises(DMSError, match="`key`.*'unit'.*`units`"):
        split_unit_cfg('key', dict(type='A', unit={}))
