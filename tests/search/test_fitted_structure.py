import pytest

from dms_mmrazor.search.fitted_structure import (
    FittedStructure,
    fit_choices,
    fit_structure,
)


@pytest.fixture
def mutator(zoo):
    return zoo.algorithm(zoo.cifar_resnet()).mutator


@pytest.mark.parametrize('divisor', [1, 8])
@pytest.mark.parametrize('portion', [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize('seed', range(2))
def test_close_to_the_target_in_narrow_layers(
    mutator, randomize_structure, divisor, portion, seed
):
    """16 to 64 channels: a step by 8 of one unit is up to 2 % of the MACs."""
    randomize_structure(mutator, seed)
    target = portion * mutator.table.full['macs']
    fit = fit_structure(mutator, dict(macs=target), divisor)
    found = mutator.resource_of('macs', fit.choices)
    close = 0.005 if divisor == 1 else 0.01
    assert (1 - close) * target <= found <= target
    assert fit.choices == fit_choices(mutator, dict(macs=target), divisor)


def test_what_was_changed(mutator, randomize_structure):
    choices = randomize_structure(mutator, 1)
    same = fit_structure(mutator, {}, 1)
    assert same.choices == same.nearest == choices and same.changed == []
    assert str(same) == (
        'Rounding: 19 of 19 units and stages keep the nearest allowed number.'
    )
    for name, wish in same.wishes.items():
        assert wish == pytest.approx(choices[name])
    target = 0.9 * mutator.resource('macs')
    fit = fit_structure(mutator, dict(macs=target), 8)
    assert fit.changed
    for name, number in fit.choices.items():
        assert (number != fit.nearest[name]) == (name in fit.changed)
    text = str(fit)
    assert text.startswith(f'Rounding: {19 - len(fit.changed)} of 19 units')
    assert '(multiples of 8)' in text and '\n' not in text
    first = fit.changed[0]
    assert f'{first} {fit.wishes[first]:.4g} → {fit.choices[first]}' in text


def test_long_lists_are_cut():
    names = [f'u{index}' for index in range(11)]
    fit = FittedStructure(
        dict.fromkeys(names, 8),
        dict.fromkeys(names, 4.5),
        dict.fromkeys(names, 4),
        4,
        -0.01,
        2,
    )
    text = str(fit)
    assert 'shifted by -0.010' in text and '2 swapped' in text
    assert 'u7 4.5 → 8 and 3 more.' in text and 'u8' not in text


def test_blocks_come_back_if_full_widths_do_not_suffice(mutator):
    """A search that removed too many blocks is still brought to its target."""
    stages = mutator.depth_units
    mutator.set_choices({stage.name: 1 for stage in stages})
    whole = mutator.table.full['macs']
    assert mutator.resource('macs') < 0.5 * whole
    fit = fit_structure(mutator, dict(macs=0.7 * whole), 8)
    depths = [fit.choices[stage.name] for stage in stages]
    assert sum(depths) > len(stages)
    found = mutator.resource_of('macs', fit.choices)
    assert 0.99 * 0.7 * whole <= found <= 0.7 * whole
    assert {stage.name for stage in stages} & set(fit.changed)
    # As few as possible: without the last one it could not be reached.
    assert 'layer' in str(fit)


def test_blocks_stay_if_widths_suffice(mutator):
    stages = mutator.depth_units
    mutator.set_choices({stage.name: 1 for stage in stages})
    target = 0.2 * mutator.table.full['macs']
    fit = fit_structure(mutator, dict(macs=target), 8)
    assert [fit.choices[stage.name] for stage in stages] == [1] * len(stages)


def test_no_block_is_added_beyond_a_target(zoo):
    """Depths alone: what fits is added, what does not is not."""
    mutator = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(channel_unit_cfg=None)
    ).mutator
    mutator.set_choices({stage.name: 1 for stage in mutator.depth_units})
    lowest = mutator.resource('macs')
    whole = mutator.table.full['macs']
    same = fit_structure(mutator, dict(macs=lowest * 1.001), 8)
    assert not same.changed
    for portion in (0.6, 0.8, 1.0):
        fit = fit_structure(mutator, dict(macs=portion * whole), 8)
        found = mutator.resource_of('macs', fit.choices)
        assert portion * whole - 0.1 * whole < found <= portion * whole
