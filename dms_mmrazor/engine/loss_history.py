"""What mmengine has recorded of a search's losses."""

from typing import Dict, List, NamedTuple, Optional, Sequence

from mmengine.runner import Runner


class Losses(NamedTuple):
    """Losses of a search.

    Attributes:
        task (float): Everything but the resource losses.
        resources (dict[str, float]): λ_r · L_r, by kind.
    """

    task: float
    resources: Dict[str, float]


def mean_losses(
    runner: Runner, kinds: Sequence[str], window: int
) -> Optional[Losses]:
    """Mean losses of the last iterations.

    Args:
        runner (Runner): During a search.
        kinds (Sequence[str]): Constrained resources.
        window (int): Number of iterations.

    Returns:
        Losses, optional: None if mmengine's ``RuntimeInfoHook``, which
        records them, has been removed.
    """
    whole = _recorded(runner, 'loss', window)
    resources = {
        kind: _mean(_recorded(runner, f'loss_{kind}', window))
        for kind in kinds
    }
    if not whole:
        return None
    return Losses(_mean(whole) - sum(resources.values()), resources)


def _recorded(runner: Runner, name: str, window: int) -> List[float]:
    buffer = runner.message_hub.log_scalars.get(f'train/{name}')
    if buffer is None:
        return []
    return [float(value) for value in buffer.data[0][-window:]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
