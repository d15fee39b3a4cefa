"""Advice on synthetic histories: what a search of each kind would log."""

import math

import pytest

from dms_mmrazor.engine.advice import (
    DECAY,
    LR,
    WEIGHT,
    History,
    advice_iteration,
    advise,
    too_coarse,
)

STEPS = 120


def history(current, resource_loss=0.01, task_loss=2.0, final=0.5):
    """A search whose target falls as in Eq. 10.

    Args:
        current (Callable): Resource of an iteration, from its number and
            its target.
    """
    target = [final ** (index / STEPS) for index in range(STEPS)]
    return History(
        'macs',
        [current(index, value) for index, value in enumerate(target)],
        target,
        [resource_loss] * STEPS,
        [task_loss] * STEPS,
    )


def noisy(index, target):
    return target * (1 + 0.004 * math.sin(3 * index))


@pytest.mark.parametrize('final', [0.9, 0.5, 0.1, 0.02])
@pytest.mark.parametrize('loss', [0.0, 0.02, 1.5])
def test_a_search_that_follows_is_left_alone(final, loss):
    assert advise(history(noisy, loss, final=final)) == []


def test_a_late_start_that_catches_up_is_left_alone():
    def current(index, target):
        return max(target, 1 - 0.0065 * index)

    assert advise(history(current)) == []


def test_the_target_falls_faster_than_the_structure():
    def current(index, target):
        return 1 - 0.001 * index

    (line,) = advise(history(current, 0.2))
    assert 'falls faster than the structure can follow' in line
    assert '60% above' in line
    assert line.index(LR) < line.index(WEIGHT) < line.index(DECAY)


def test_a_structure_that_does_not_move():
    (line,) = advise(history(lambda index, target: 1.0, 0.4))
    assert 'raise' in line and LR in line


def test_jumps():
    def current(index, target):
        return target * (1.1 if index % 7 == 0 else 1.0)

    (line,) = advise(history(current))
    assert 'Single steps change the macs by 11%' in line
    assert line.endswith(f'Lower {LR}.')


def test_a_steep_schedule_is_no_jump():
    assert advise(history(noisy, final=1e-3)) == []


def test_two_jumps_are_chance():
    def current(index, target):
        return target * (1.2 if index == 50 else 1.0)

    assert advise(history(current)) == []


def test_far_below_the_target():
    (line,) = advise(history(lambda index, target: 0.8 * target, 0.0))
    assert '20% below its macs target' in line and LR in line


def test_far_below_while_another_target_holds_it_there():
    below = history(lambda index, target: 0.8 * target, 0.0)
    near = history(noisy)
    assert advise(below, [near]) == []
    assert len(advise(below, [below])) == 1


def test_dominated_by_the_resource_loss():
    (line,) = advise(history(noisy, 3.0, 1.5))
    assert 'task loss (1.5) is dominated' in line and 'macs (3)' in line
    assert line.endswith(f'lower {WEIGHT}.')


def test_dominated_and_yet_too_slow():
    """The weight cannot be what to raise then."""
    behind, dominated = advise(history(lambda index, target: 1.0, 9.0))
    assert 'falls faster' in behind
    assert dominated.endswith(f'lower {WEIGHT}, and raise {LR} instead.')


def test_every_line_is_one_line_and_names_a_key():
    lines = advise(history(lambda i, t: 1.1 if i % 2 else 1.0, 9.0))
    assert len(lines) == 3
    for line in lines:
        assert '\n' not in line and '`' in line and line.endswith('.')


def test_what_is_told_already_is_not_repeated():
    jumping = history(lambda i, t: 1.1 if i % 2 else 1.0, 9.0)
    assert ['jump' in line for line in too_coarse(jumping)] == [True]
    lines = advise(jumping, told_coarse=True)
    assert len(lines) == 2
    assert not set(lines) & set(too_coarse(jumping))
    assert too_coarse(history(noisy)) == []


def test_too_short_to_say_anything():
    whole = history(lambda index, target: 1.0, 9.0)
    assert advise(History('macs', *[part[:11] for part in whole[1:]])) == []
    assert advise(History('macs', [], [], [], [])) == []


@pytest.mark.parametrize(
    'warmup, decay, expected',
    [
        (0, 10000, 300),
        (500, 10000, 800),
        (0, 240, 120),
        (3.2, 9, 8),
        (0, 1, 1),
    ],
)
def test_when(warmup, decay, expected):
    assert advice_iteration(warmup, decay) == expected
