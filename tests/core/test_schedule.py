import math

import pytest

from dms_mmrazor.core import Phase, phase_at, scheduled_target

SHAPES = ['exponential', 'linear', 'cosine']


@pytest.mark.parametrize('shape', SHAPES)
def test_ends_are_exact_and_between_it_falls(shape):
    start, final = 4.089e9, 1.3e9 / 3
    values = [
        scheduled_target(i / 100, start, final, shape) for i in range(101)
    ]
    assert values[0] == start and values[-1] == final
    assert all(a > b for a, b in zip(values, values[1:]))


def test_middle_of_each_shape():
    assert math.isclose(scheduled_target(0.5, 100.0, 4.0), 20.0)
    assert math.isclose(scheduled_target(0.5, 100.0, 4.0, 'linear'), 52.0)
    assert math.isclose(scheduled_target(0.5, 100.0, 4.0, 'cosine'), 52.0)
    assert scheduled_target(0.0, 100.0, 4.0, 'constant') == 4.0


def test_phases():
    expected = {
        0.0: Phase('warmup', 0.0),
        0.2: Phase('decay', 0.0),
        0.45: Phase('decay', 0.5),
        0.7: Phase('refine', 1.0),
        1.0: Phase('refine', 1.0),
    }
    for progress, phase in expected.items():
        found = phase_at(progress, warmup=0.2, decay=0.5)
        assert found.name == phase.name
        assert math.isclose(found.progress, phase.progress, abs_tol=1e-12)


def test_search_without_refining_ends_in_decay():
    assert phase_at(1.0, warmup=0.3, decay=0.7) == Phase('decay', 1.0)
    assert phase_at(1.0, decay=1.0) == Phase('decay', 1.0)


def test_defaults():
    assert phase_at(0.0) == Phase('decay', 0.0)
    assert phase_at(0.8) == Phase('refine', 1.0)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: scheduled_target(1.1, 2.0, 1.0), 'progress'),
        (lambda: scheduled_target(float('nan'), 2.0, 1.0), 'progress'),
        (lambda: scheduled_target(0.5, 0.0, 1.0), 'start'),
        (lambda: scheduled_target(0.5, 2.0, float('inf')), 'final'),
        (lambda: scheduled_target(0.5, 2.0, 1.0, 'step'), "'step'"),
        (lambda: phase_at(-0.1), 'progress'),
        (lambda: phase_at(0.5, warmup=-0.1), 'warmup=-0.1'),
        (lambda: phase_at(0.5, decay=0.0), 'decay=0.0'),
        (lambda: phase_at(0.5, warmup=0.3, decay=0.8), 'warmup=0.3'),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
