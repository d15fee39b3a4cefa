"""From a checkpoint of a search to a subnet."""

from typing import Any, Dict, Mapping, NamedTuple, Optional

from mmengine.config import Config

from dms_mmrazor.apis.checkpoint_files import (
    check_fits,
    read_checkpoint,
    state_dict_of,
)
from dms_mmrazor.core import phase_at, scheduled_target
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm


class SearchProgress(NamedTuple):
    """How far the search of a checkpoint was.

    Attributes:
        iteration (int): Trained iterations.
        total (int): Iterations of the whole search; 0 if unknown.
    """

    iteration: int
    total: int

    @property
    def fraction(self) -> float:
        """Progress in [0, 1]; 1 if the total is unknown."""
        return min(self.iteration / self.total, 1.0) if self.total else 1.0

    @property
    def finished(self) -> bool:
        """Whether the search was at its end."""
        return self.fraction >= 1

    def __str__(self) -> str:
        return f'iteration {self.iteration} of {self.total or "unknown"}'


def load_search(
    algorithm: DMSAlgorithm, path: str, cfg: Optional[Config] = None
) -> SearchProgress:
    """Load the checkpoint of a search, every weight and every choice.

    Args:
        algorithm (DMSAlgorithm): Built from the config of the search; it is
            changed in place.
        path (str): The checkpoint, of any iteration.
        cfg (Config, optional): Config of the search, for its length where
            the checkpoint does not tell it. Defaults to None.

    Raises:
        DMSError: If it cannot be read or belongs to another model.
    """
    checkpoint = read_checkpoint(path)
    state = state_dict_of(checkpoint, path)
    state = {_without_wrapper(name): value for name, value in state.items()}
    if not any(name.startswith('mutator.') for name in state):
        raise DMSError(
            f'{path} is not the checkpoint of a search: it has no '
            "'mutator.' weights."
        )
    check_fits(algorithm, state, path)
    unknown = sorted(set(state) - set(algorithm.state_dict()))
    if unknown:
        raise DMSError(
            f'checkpoint {path} belongs to another model than the config: '
            f'the model has no {unknown[0]!r}.'
        )
    algorithm.load_state_dict(state)
    algorithm.eval()
    return _progress(checkpoint, cfg)


def _without_wrapper(name: str) -> str:
    """A name without the prefix of a distributed wrapper."""
    return name[len('module.') :] if name.startswith('module.') else name


def _progress(
    checkpoint: Mapping[str, Any], cfg: Optional[Config]
) -> SearchProgress:
    meta = checkpoint.get('meta') or {}
    hub = checkpoint.get('message_hub')
    info = hub.get('runtime_info', {}) if isinstance(hub, dict) else {}
    train_cfg = cfg.get('train_cfg') if cfg is not None else None
    total = info.get('max_iters') or (train_cfg or {}).get('max_iters') or 0
    return SearchProgress(int(meta.get('iter') or 0), int(total))


def targets_at(
    algorithm: DMSAlgorithm,
    targets: Mapping[str, float],
    progress: float,
    warmup: float = 0.0,
    decay: float = 0.8,
    schedule: str = 'exponential',
) -> Dict[str, float]:
    """Targets that the schedule of a search has at some moment.

    Args:
        algorithm (DMSAlgorithm): The search.
        targets (Mapping[str, float]): Final targets, absolute.
        progress (float): Progress of the whole search in [0, 1].
        warmup (float): As for ``ResourceHook``. Defaults to 0.
        decay (float): As for ``ResourceHook``. Defaults to 0.8.
        schedule (str): As for ``ResourceHook``. Defaults to
            'exponential'.

    Returns:
        dict[str, float]: The supernet's resources during the warm-up.
    """
    phase = phase_at(progress, warmup, decay)
    full = algorithm.mutator.table.full
    if phase.name == 'warmup':
        return {kind: full[kind] for kind in targets}
    return {
        kind: scheduled_target(phase.progress, full[kind], final, schedule)
        for kind, final in targets.items()
    }
