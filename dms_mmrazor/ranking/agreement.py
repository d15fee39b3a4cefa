"""How well two rankings of the same candidates agree.

Kendall's τ counts pairs of candidates that both put in the same order: 1 all
of them, 0 half, −1 none.
"""

import itertools
import math
import statistics
from typing import (
    Callable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

import numpy as np
from scipy import stats

RESAMPLES = 2000

Statistic = Callable[[Sequence[float], Sequence[float]], float]


class Interval(NamedTuple):
    """A value and where it lies in 95 % of resamples; nan if unknown."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.2f} ({self.low:.2f} … {self.high:.2f})'


def kendall(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's τ-b; nan for fewer than two candidates, or equal ones.

    Args:
        scores (Sequence[float]): By candidate; −inf is last.
        truth (Sequence[float]): By candidate, in the same order.
    """
    if len(scores) < 2 or len(set(scores)) < 2 or len(set(truth)) < 2:
        return math.nan
    # Ranks: some versions take an infinite number for a missing one.
    ranks = [stats.rankdata(values) for values in (scores, truth)]
    return float(stats.kendalltau(*ranks).statistic)


def best_third(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's τ among the third, at least two, that is best in truth.

    Args:
        scores (Sequence[float]): By candidate.
        truth (Sequence[float]): By candidate.
    """
    number = max(round(len(truth) / 3), 2)
    best = sorted(range(len(truth)), key=lambda i: -truth[i])[:number]
    return kendall([scores[i] for i in best], [truth[i] for i in best])


def regret(scores: Sequence[float], truth: Sequence[float]) -> float:
    """How much better than the one chosen by the score the best is."""
    return max(truth) - truth[int(np.argmax(scores))]


def bootstrap(
    scores: Sequence[float],
    truth: Sequence[float],
    statistic: Statistic = kendall,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic and its 95 % interval over resampled candidates.

    Pairs of one candidate with itself are tied in both rankings, which τ-b
    leaves out.

    Args:
        scores (Sequence[float]): By candidate.
        truth (Sequence[float]): By candidate.
        statistic (Callable): Defaults to :func:`kendall`.
        resamples (int): Defaults to 2000.
        seed (int): Of the resampling. Defaults to 0.
    """
    draw = np.random.default_rng(seed)
    number, values = len(scores), []
    for _ in range(resamples):
        index = draw.integers(number, size=number)
        value = statistic(
            [scores[i] for i in index], [truth[i] for i in index]
        )
        if math.isfinite(value):
            values.append(value)
    low, high = (
        np.quantile(values, (0.025, 0.975)) if values else (math.nan,) * 2
    )
    return Interval(statistic(scores, truth), float(low), float(high))


def between_seeds(by_seed: Mapping[int, Sequence[float]]) -> float:
    """Mean Kendall's τ of all pairs of seeds; nan for fewer than two.

    Args:
        by_seed (Mapping[int, Sequence[float]]): Seed → score by candidate.
    """
    found = [
        kendall(first, second)
        for first, second in itertools.combinations(by_seed.values(), 2)
    ]
    found = [value for value in found if math.isfinite(value)]
    return statistics.fmean(found) if found else math.nan


class Ceiling(NamedTuple):
    """What the noise of the truth leaves to be reached.

    Attributes:
        tau (float): Expected τ of a perfect score with the mean of the
            seeds; nan if the candidates cannot be told apart.
        between_seeds (float): Mean τ of two single seeds.
        noise (float): Standard deviation of one training's result.
        spread (float): Standard deviation of the candidates' true values.
    """

    tau: float
    between_seeds: float
    noise: float
    spread: float


def ceiling(
    by_seed: Mapping[int, Sequence[float]], draws: int = 400
) -> Ceiling:
    """The τ that even a perfect score would not exceed on average.

    The noise is estimated from the seeds' differences, the spread of true
    values is what remains of the variance of the means; truths and
    measurements are drawn from normal distributions of these.

    Args:
        by_seed (Mapping[int, Sequence[float]]): Seed → result of the full
            training by candidate; two seeds or more.
        draws (int): Defaults to 400.
    """
    results = np.array([list(row) for row in by_seed.values()])
    seeds, number = results.shape
    if seeds < 2 or number < 2:
        return Ceiling(math.nan, math.nan, math.nan, math.nan)
    noise = float(np.sqrt(results.var(axis=0, ddof=1).mean()))
    left = float(results.mean(axis=0).var(ddof=1)) - noise**2 / seeds
    spread = math.sqrt(max(left, 0.0))
    tau = math.nan
    if spread > 0:
        draw = np.random.default_rng(0)
        found: List[float] = []
        for _ in range(draws):
            true = draw.normal(0, spread, number)
            seen = true + draw.normal(0, noise / math.sqrt(seeds), number)
            found.append(kendall(true.tolist(), seen.tolist()))
        tau = statistics.fmean(found)
    return Ceiling(tau, between_seeds(by_seed), noise, spread)


def at_seconds(
    points: Mapping[float, float], seconds: float
) -> Optional[float]:
    """A value at a cost, linear in the logarithm of the cost between points.

    Args:
        points (Mapping[float, float]): Seconds → value.
        seconds (float): What may be spent.

    Returns:
        float | None: None outside of the measured costs.
    """
    costs = sorted(points)
    if not costs or not costs[0] <= seconds <= costs[-1]:
        return None
    logs = [math.log(cost) for cost in costs]
    values = [points[cost] for cost in costs]
    return float(np.interp(math.log(seconds), logs, values))
