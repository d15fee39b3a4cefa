import pytest

from dms_mmrazor.core import Phase
from dms_mmrazor.core.durations import (
    PhaseLengths,
    check_durations,
    phase_lengths,
)


@pytest.mark.parametrize(
    'warmup, decay, expected',
    [
        (0.0, 0.8, (0, 240)),
        (0.1, 0.57, (30, 171)),
        (0, 1, (0, 300)),
        ('2 epochs', '5 epochs', (60, 150)),
        ('1 epoch', 0.5, (30, 150)),
        ('20 iterations', '1iter', (20, 1)),
        ('0 epochs', ' 300 Iters ', (0, 300)),
        (0.3, 0.7, (90, 210)),
        ('10%', ' 50 % ', (30, 150)),
    ],
)
def test_iterations(warmup, decay, expected):
    check_durations(warmup, decay)
    lengths = phase_lengths(warmup, decay, 300, 30)
    assert lengths == PhaseLengths(*expected, 300)


def test_phases_change_at_whole_iterations():
    lengths = phase_lengths('3 epochs', '5 epochs', 100, 10)
    names = [lengths.at(iteration).name for iteration in range(101)]
    assert names == ['warmup'] * 30 + ['decay'] * 50 + ['refine'] * 21
    assert lengths.at(55) == Phase('decay', 0.5)
    # More iterations than planned, after a resume with another length.
    assert lengths.at(120).name == 'refine'


@pytest.mark.parametrize('total', [7, 10, 30, 100, 365, 782, 1000])
def test_portions_that_are_whole_numbers_of_iterations(total):
    for count in range(1, total):
        lengths = phase_lengths(0.0, count / total, total)
        assert lengths.decay == count
        assert lengths.at(count - 1).name == 'decay'
        assert lengths.at(count).name == 'refine'


@pytest.mark.parametrize('warmup, decay', [(0, 0.7), (0.1, 0.6)])
def test_depth_becomes_hard_in_a_third_of_the_refining(warmup, decay):
    lengths = phase_lengths(warmup, decay, 1000)
    assert lengths.iterations_to_hold() == 100
    found = [lengths.hardness(iteration) for iteration in range(1000)]
    expected = [i / 100 for i in range(1, 100)]
    assert found == [0.0] * 700 + expected + [1.0] * 201
    assert lengths.hardness(1200) == 1.0


@pytest.mark.parametrize('refining', [1, 2, 3])
def test_a_short_refining_holds_at_once(refining):
    lengths = PhaseLengths(0.0, 10.0, 10 + refining)
    found = [lengths.hardness(iteration) for iteration in range(12)]
    assert found == [0.0] * 10 + [1.0] * 2


@pytest.mark.parametrize('decay', [0.3, 0.57, 0.8, '33 iterations', 1.0])
def test_depth_is_held_in_the_refining_phase_alone(decay):
    lengths = phase_lengths(0.0, decay, 365)
    for iteration in range(365):
        refines = lengths.at(iteration).name == 'refine'
        assert (lengths.hardness(iteration) > 0) == refines


BAD = [
    (5, 0.5, "`warmup` must be .*'3 epochs'.*got 5"),
    (True, 0.5, '`warmup` must be .*got True'),
    (-0.1, 0.5, '`warmup` must be .*got -0.1'),
    (None, 0.5, '`warmup` must be .*got None'),
    (0.0, float('nan'), '`decay` must be .*got nan'),
    (0.0, '10', "`decay` must be .*got '10'"),
    (0.0, '-1 epochs', "`decay` must be .*got '-1 epochs'"),
    (0.0, '1.5 epochs', "`decay` must be .*got '1.5 epochs'"),
    (0.0, '3 hours', "`decay` must be .*got '3 hours'"),
    (0.0, 0.0, 'decay > 0.*decay=0'),
    (0.5, 0.8, 'warmup=0.5 and decay=0.8'),
]


@pytest.mark.parametrize('warmup, decay, message', BAD)
def test_known_before_the_length(warmup, decay, message):
    for check in (check_durations, lambda *a: phase_lengths(*a, 100, 10)):
        with pytest.raises(ValueError, match=message):
            check(warmup, decay)


@pytest.mark.parametrize(
    'warmup, decay, message',
    [
        ('2 epochs', '9 epochs', 'decay=9 epochs: 20 and 90 of 100'),
        ('30 iters', 0.8, 'decay=0.8: 30 and 80 of 100 iterations'),
        (0.0, '0 epochs', 'decay > 0'),
    ],
)
def test_what_does_not_fit_into_the_training(warmup, decay, message):
    check_durations(warmup, decay)
    with pytest.raises(ValueError, match=message):
        phase_lengths(warmup, decay, 100, 10)


def test_epochs_of_a_training_without_epochs():
    with pytest.raises(ValueError, match="by_epoch=False.*'500 iterations'"):
        phase_lengths('2 epochs', 0.5, 100)
