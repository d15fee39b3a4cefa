"""What is said of a search that ended away from its target."""

import pytest

from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.search.export_warnings import warn_if_far, warn_if_loose


@pytest.fixture
def search(zoo):
    search = zoo.algorithm(zoo.cifar_resnet(18))
    search.mutator.topk.pruning_ratio.data.fill_(0.3)
    return search


@pytest.fixture
def mutator(search):
    return search.mutator


def lines(mutator, **portions):
    """Warnings for targets that are these portions of what is kept."""
    targets = {
        kind: portion * mutator.resource(kind, hard=False)
        for kind, portion in portions.items()
    }
    found = list(warn_if_far(mutator, targets))
    assert all('\n' not in line for line in found)
    return found


@pytest.mark.parametrize('portion', [0.985, 1.0, 1.015])
def test_near_enough(mutator, portion):
    assert lines(mutator, macs=portion) == []


def test_above(mutator):
    (line,) = lines(mutator, macs=0.9)
    assert 'ended 11.1% above its macs target' in line
    assert 'model.structure_step.lr' in line


def test_below(mutator):
    (line,) = lines(mutator, macs=1.25)
    assert 'ended 20.0% below its macs target' in line
    assert 'ResourceHook.decay' in line
    assert 'model.structure_step.lr' in line


def test_of_several_targets_the_nearest_counts(mutator):
    assert lines(mutator, macs=1.0, params=1.5) == []
    (line,) = lines(mutator, macs=1.25, params=1.5)
    assert '20.0% below its macs target' in line
    (line,) = lines(mutator, macs=0.9, params=1.5)
    assert 'above its macs target' in line


def test_an_export_that_cannot_come_close(zoo):
    search = zoo.algorithm(
        zoo.cifar_resnet(18), mutator=dict(channel_unit_cfg=None)
    )
    target = 0.95 * search.mutator.table.full['macs']
    subnet = export_subnet(search, dict(macs=target))
    (line,) = warn_if_loose(subnet, 8)
    under = 1 - subnet.structure.resources['macs']['subnet'] / target
    assert f'{under:.1%} under its macs target' in line
    assert 'ResourceHook.divisor' in line


@pytest.mark.parametrize('divisor', [1, 8])
def test_an_export_that_comes_close(search, divisor):
    target = 0.4 * search.mutator.table.full['macs']
    subnet = export_subnet(search, dict(macs=target), divisor)
    assert list(warn_if_loose(subnet, divisor)) == []
    assert list(warn_if_loose(export_subnet(search), 8)) == []
