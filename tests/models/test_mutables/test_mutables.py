import copy

import pytest
import torch

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutables import (
    DMSChannelContainer,
    DMSMutableChannel,
    DMSMutableDepth,
    ExpandedMutableChannel,
    MaskTable,
    TopkOperator,
)


@pytest.fixture
def searched():
    """Two mutables of 4 and 3 channels with operators."""
    topk, table = FlatTopk([4, 3]), MaskTable()
    topk.set_importance_(torch.tensor([1.0, 3, 2, 4, 7, 6, 5]))
    mutables = [DMSMutableChannel(4), DMSMutableChannel(3)]
    for index, mutable in enumerate(mutables):
        mutable.operator = TopkOperator(topk, table, index)
    return mutables


def test_choice_decides_the_masks(searched):
    first, second = searched
    assert first.mask is None
    first.current_choice = 2
    assert first.current_choice == 2
    assert first.current_mask.tolist() == [False, True, False, True]
    assert first.mask.tolist() == [0, 1, 0, 1]
    assert second.mask.tolist() == [1, 1, 1]
    second.current_choice = 0.34
    assert second.current_choice == 1
    assert second.mask.tolist() == [1, 0, 0]
    assert first.mask.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize('choice', [5, -1, 1.5, 0.0])
def test_wrong_choice(searched, choice):
    with pytest.raises(DMSError, match='choice'):
        searched[0].current_choice = choice


def test_unsearched_mutables_keep_everything():
    channel = DMSMutableChannel(4)
    assert channel.mask is None and channel.current_choice == 4
    channel.current_choice = 4
    with pytest.raises(DMSError, match='not searched'):
        channel.current_choice = 2
    assert channel.num_choices() == 4
    depth = DMSMutableDepth(3)
    assert depth.current_mask.tolist() == [True] * 3


def test_depth():
    depth = DMSMutableDepth(3)
    topk, table = FlatTopk([3], temperatures=[12]), MaskTable()
    depth.operator = TopkOperator(topk, table, 0)
    depth.fix_chosen(2)
    assert depth.is_fixed and depth.current_choice == 2
    assert depth.dump_chosen() == {
        'chosen': [True, True, False],
        'meta': {'num_blocks': 3},
    }


def test_container_concatenates_and_fills_gaps(searched):
    first, second = searched
    container = DMSChannelContainer(12)
    container.register_mutable(first, 0, 4)
    container.register_mutable(ExpandedMutableChannel(second, 2), 6, 12)
    assert container.mask is None
    assert container.current_mask.tolist() == [True] * 12
    first.current_choice = 1
    second.current_choice = 2
    expected = [0, 0, 0, 1] + [1, 1] + [1, 1, 1, 1, 0, 0]
    assert container.mask.tolist() == expected
    assert container.current_mask.tolist() == [bool(m) for m in expected]


def test_expanded_choice(searched):
    expanded = ExpandedMutableChannel(searched[0], 3)
    expanded.current_choice = 6
    assert expanded.current_choice == 6
    assert searched[0].current_choice == 2


def test_a_copy_has_operators_of_its_own(searched):
    searched[0].current_choice = 2
    copies = copy.deepcopy(searched)
    # Masks belong to one step.
    assert copies[0].mask is None
    assert copies[0].operator.topk is copies[1].operator.topk
    assert copies[0].operator.table is copies[1].operator.table
    copies[0].current_choice = 1
    assert searched[0].current_choice == 2
    assert searched[0].mask.sum() == 2
