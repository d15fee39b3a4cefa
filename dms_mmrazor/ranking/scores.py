"""What a short training says about a network: scores, higher is better.

Formulas of the terms called landscape, speed and MOTE are those of *MOTE-NAS:
Multi-Objective Training-based Estimate for Efficient Neural Architecture
Search* (NeurIPS 2024); its reviews ask to see the terms apart, which is what
this file does.
"""

import math
from typing import (
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

from dms_mmrazor.errors import DMSError

DIVERGED = 10.0
"""A mean loss this many times the first one is no training anymore."""

LAST = -math.inf
"""Score of what has diverged."""


class Trajectory(NamedTuple):
    """What a short training leaves behind, as plain data.

    A period is an epoch, or a part of one where a training has fewer than
    ten epochs: all trainings of one ranking have the same periods.

    Attributes:
        losses (Sequence[float]): Mean training loss of each period.
        seconds (Sequence[float]): Seconds of training of each period.
        landscape (Sequence[float]): Training losses on the straight line
            from the initial to the trained weights, both ends included.
            Defaults to (), not measured.
        accuracy (float, optional): Metric of the trained network, higher
            is better. Defaults to None, not measured.
        costs (Mapping[str, float]): Seconds by what they were spent on:
            'training', 'landscape', 'evaluation'. Defaults to {}.
        diverged (str): Why the training counts as diverged. Defaults to
            '', it does not.
    """

    losses: Sequence[float]
    seconds: Sequence[float]
    landscape: Sequence[float] = ()
    accuracy: Optional[float] = None
    costs: Mapping[str, float] = {}
    diverged: str = ''


class MoteWeights(NamedTuple):
    """Constants of :func:`mote`; the defaults are those of NAS-Bench-201.

    Attributes:
        landscape (float): λ_L. Defaults to 0.86.
        landscape_scale (float): σ_L. Defaults to 1.216.
        speed (float): λ_S. Defaults to 0.617.
        speed_scale (float): σ_S. Defaults to 0.961.
    """

    landscape: float = 0.86
    landscape_scale: float = 1.216
    speed: float = 0.617
    speed_scale: float = 0.961


def accuracy(trajectory: Trajectory) -> float:
    """The metric after the short training.

    Raises:
        DMSError: If it was not measured.
    """
    if trajectory.accuracy is None:
        raise DMSError(
            '`score=accuracy` needs an evaluation, and the recipe has none: '
            'give it one (a config: `val_dataloader`, `val_evaluator`), or '
            'take `final_loss`.'
        )
    return float(trajectory.accuracy)


def final_loss(trajectory: Trajectory) -> float:
    """Negative mean training loss of the last period: free."""
    return -trajectory.losses[-1]


def tse(trajectory: Trajectory, burn_in: float = 0.0) -> float:
    """Negative sum of training losses (training speed estimate).

    Args:
        trajectory (Trajectory): Of one training.
        burn_in (float): Portion of the periods, at the beginning, that does
            not count, in [0, 1). Defaults to 0; MOTE's authors compare
            with 0.2.
    """
    skipped = int(burn_in * len(trajectory.losses))
    return -math.fsum(trajectory.losses[skipped:])


def landscape(trajectory: Trajectory) -> float:
    """L = Σ_g 1 / loss(θ_g) on the line from initial to trained weights.

    θ_g = (1 − g/G) θ_init + (g/G) θ_end for g = 0 … G; MOTE has G = 10.

    Raises:
        DMSError: If it was not measured.
    """
    if not trajectory.landscape:
        raise DMSError(
            '`score=landscape` needs the losses between initial and trained '
            'weights: let the recipe measure them '
            '(`landscape_batches` > 0).'
        )
    # A loss that is not finite is as bad as an infinite one: it adds 0.
    return math.fsum(
        1 / max(loss, 1e-12)
        for loss in trajectory.landscape
        if math.isfinite(loss)
    )


def speed(trajectory: Trajectory, form: str = 'released') -> float:
    """How much loss is left for the time that was spent.

    In both forms a network that takes longer for the same loss is better:
    among networks of unlike size it is largely a measure of size.

    Args:
        trajectory (Trajectory): Of one training.
        form (str): 'released', seconds of the training / mean loss, as the
            authors' code has it; or 'text', − Σ over periods of loss /
            seconds, as the reviews describe it, with the sign that lets
            good networks have more. Defaults to 'released'.

    Raises:
        DMSError: If the form is another one.
    """
    losses, seconds = trajectory.losses, trajectory.seconds
    if form == 'text':
        return -math.fsum(
            loss / max(time, 1e-9) for loss, time in zip(losses, seconds)
        )
    if form != 'released':
        raise DMSError(
            f"`speed` has the forms 'released' and 'text', got {form!r}."
        )
    mean = math.fsum(losses) / len(losses)
    return math.fsum(seconds) / max(mean, 1e-12)


def mote(
    landscapes: Sequence[float],
    speeds: Sequence[float],
    weights: Optional[MoteWeights] = None,
) -> List[float]:
    """λ_L² σ_L BoxCox(L) + λ_S² σ_S BoxCox(S) of several candidates.

    The exponents of both Box-Cox transformations are those of the highest
    likelihood over the candidates: a candidate alone has no such score.

    Args:
        landscapes (Sequence[float]): L of each candidate, > 0.
        speeds (Sequence[float]): S of each, > 0, of the form 'released'.
        weights (MoteWeights, optional): Defaults to None, the authors' for
            NAS-Bench-201.

    Returns:
        list[float]: A score each.
    """
    constants = weights or MoteWeights()
    terms = (
        (constants.landscape, constants.landscape_scale, landscapes),
        (constants.speed, constants.speed_scale, speeds),
    )
    total = [0.0] * len(landscapes)
    for weight, scale, values in terms:
        for index, value in enumerate(box_cox(values)):
            total[index] += weight**2 * scale * value
    return total


def box_cox(values: Sequence[float]) -> List[float]:
    """Box-Cox transformed values, 0 for all if there is only one value.

    Args:
        values (Sequence[float]): > 0.
    """
    from scipy import stats

    if len(set(values)) < 2:
        return [0.0] * len(values)
    transformed, _ = stats.boxcox(list(values))
    return [float(value) for value in transformed]


def divergence(first: float, mean: float) -> str:
    """Why a loss is that of a diverged training; '' if it is not.

    Args:
        first (float): Loss of the first iteration.
        mean (float): Mean loss of a period, or the loss of an iteration.
    """
    if not math.isfinite(mean):
        return f'the training loss became {mean}'
    if mean > DIVERGED * abs(first):
        return f'the training loss rose from {first:.4g} to {mean:.4g}'
    return ''


SINGLE: Dict[str, Callable[[Trajectory], float]] = {
    'accuracy': accuracy,
    'final_loss': final_loss,
    'tse': tse,
    'landscape': landscape,
    'speed': speed,
}
"""Scores of a candidate alone."""

SCORES = (*SINGLE, 'mote')

WORTH = {
    'accuracy': 'metric after the short training; the best predictor over '
    'all candidates (τ .67 / .60 / .63 at equal FLOPs), no better than the '
    'others among the best fifth (.33 / .27 / .30); costs an evaluation',
    'final_loss': 'negative last training loss; free, and the best among '
    'the best fifth (.35 / .31 / .31; over all .37 / .35 / .33)',
    'tse': 'negative sum of training losses; free (.37 / .36 / .33, best '
    'fifth .32 / .29 / .27)',
    'landscape': 'Σ 1 / loss between initial and trained weights (.40 / '
    '.39 / .35, best fifth .33 / .29 / .28); costs 11 forward passes a batch',
    'speed': 'seconds / mean loss, mostly a measure of size (.24 / .23 / '
    '.18, best fifth .25 / .24 / .24); needs an idle machine',
    'mote': 'landscape and speed together (.37 / .36 / .31, best fifth .31 '
    '/ .29 / .28)',
}
"""What each score is and was worth: Kendall τ with the accuracy of 200
epochs on CIFAR-10 / CIFAR-100 / ImageNet16-120, computed from the tables
that MOTE's authors have released for NAS-Bench-201 (12 epochs, 15,614
architectures)."""


def check_score(name: str) -> str:
    """A score's name.

    Raises:
        DMSError: If there is none of that name.
    """
    if name not in SCORES:
        raise DMSError(
            f'`score` must be one of {", ".join(SCORES)}, got {name!r}.'
        )
    return name


def score_all(
    trajectories: Mapping[str, Trajectory],
    weights: Optional[MoteWeights] = None,
) -> Dict[str, Dict[str, float]]:
    """All scores that the trainings of one seed allow.

    Args:
        trajectories (Mapping[str, Trajectory]): By candidate.
        weights (MoteWeights, optional): Of :func:`mote`. Defaults to None.

    Returns:
        dict[str, dict[str, float]]: Score → candidate → value, −inf for
        what has diverged.
    """
    sound = {k: t for k, t in trajectories.items() if not t.diverged}
    measured = [name for name in SINGLE if _measured(name, sound.values())]
    table: Dict[str, Dict[str, float]] = {}
    for name in measured:
        table[name] = {k: SINGLE[name](t) for k, t in sound.items()}
    if {'landscape', 'speed'} <= set(table) and len(sound) > 1:
        terms = [list(table[name].values()) for name in ('landscape', 'speed')]
        table['mote'] = dict(zip(sound, mote(*terms, weights)))
    lost = {k: LAST for k in trajectories if k not in sound}
    return {name: {**column, **lost} for name, column in table.items()}


def _measured(name: str, sound: Sequence[Trajectory]) -> bool:
    """Whether all trainings have what a score needs."""
    if name == 'accuracy':
        return all(t.accuracy is not None for t in sound)
    if name == 'landscape':
        return all(len(t.landscape) > 0 for t in sound)
    return True
