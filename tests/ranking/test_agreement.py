import math

import numpy as np
import pytest

from dms_mmrazor.ranking import agreement


def test_kendall_by_hand():
    # Of six pairs one is the other way round.
    assert agreement.kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(
        4 / 6
    )
    assert agreement.kendall([-math.inf, 1, 2], [0, 1, 2]) == 1
    assert math.isnan(agreement.kendall([1], [1]))
    assert math.isnan(agreement.kendall([1, 1], [1, 2]))


def test_best_third_and_regret():
    truth = [1, 2, 3, 4, 8, 9]
    scores = [1, 2, 3, 4, 6, 5]
    assert agreement.best_third(scores, truth) == -1
    assert agreement.kendall(scores, truth) > 0.8
    assert agreement.regret(scores, truth) == 1
    assert agreement.regret(truth, truth) == 0


def test_bootstrap_covers_the_value_and_repeats():
    draw = np.random.default_rng(1)
    truth = draw.normal(size=20)
    noisy = (truth + draw.normal(size=20)).tolist()
    found = agreement.bootstrap(noisy, truth.tolist(), resamples=200)
    assert found.low < found.value < found.high
    assert found == agreement.bootstrap(noisy, truth.tolist(), resamples=200)
    perfect = agreement.bootstrap(truth.tolist(), truth.tolist(), resamples=50)
    assert perfect.low == pytest.approx(1) == perfect.high


def test_ceiling_falls_with_the_noise_of_the_seeds():
    draw = np.random.default_rng(0)
    true = draw.normal(0, 1, 40)

    def ceiling(noise):
        rows = {s: (true + draw.normal(0, noise, 40)).tolist() for s in (0, 1)}
        return agreement.ceiling(rows, draws=50)

    quiet, loud = ceiling(0.1), ceiling(1.0)
    assert quiet.tau > 0.85 > loud.tau
    assert quiet.noise == pytest.approx(0.1, rel=0.5)
    assert loud.between_seeds < loud.tau
    assert math.isnan(agreement.ceiling({0: [1.0, 2.0]}).tau)


def test_values_at_equal_cost():
    points = {1.0: 0.2, 4.0: 0.6}
    assert agreement.at_seconds(points, 2.0) == pytest.approx(0.4)
    assert agreement.at_seconds(points, 4.0) == pytest.approx(0.6)
    assert agreement.at_seconds(points, 5.0) is None


def test_between_seeds():
    rows = {0: [1, 2, 3], 1: [1, 2, 3], 2: [3, 2, 1]}
    assert agreement.between_seeds(rows) == pytest.approx(-1 / 3)
