import pytest

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators.search_space import (
    check_names,
    exclude_groups,
    merge_args,
    split_unit_cfg,
)
from dms_mmrazor.models.tracing import ChannelGroup


def group(name, *readers, reason=''):
    config = dict(
        channels=dict(
            output_related=[dict(name=name)],
            input_related=[dict(name=reader) for reader in readers],
        )
    )
    return ChannelGroup(name, config, reason)


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


def test_excluding_by_unit_or_layer():
    groups = [group('a', 'b'), group('b', 'c'), group('d', reason='why')]
    found = exclude_groups(groups, ['b', 'd'], width=True)
    excluded = 'excluded by `mutator.exclude`'
    assert [g.reason for g in found] == [excluded, excluded, 'why']
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
