"""How a teacher is listened to, as a config or a call says it."""

from typing import Any, Mapping, NamedTuple, Tuple

from dms_mmrazor.errors import DMSError


class DistillSettings(NamedTuple):
    """How a teacher is listened to.

    Attributes:
        teacher (optional): A model. None: the supernet's own start weights.
        temperature (float): Of the KL divergence.
        weight (float): Of the divergence of the logits.
        task_weight (float): Of the losses of the task itself; 0 leaves
            distillation alone.
        logits (tuple[str, ...]): Modules that give logits, names or
            patterns; () where the usual names do.
        hidden (tuple[str, ...]): Modules whose outputs are compared by
            their mean squared difference.
        hidden_weight (float): Of these.
    """

    teacher: Any = None
    temperature: float = 1.0
    weight: float = 1.0
    task_weight: float = 1.0
    logits: Tuple[str, ...] = ()
    hidden: Tuple[str, ...] = ()
    hidden_weight: float = 1.0

    @classmethod
    def read(cls, settings: Any, owner: str) -> 'DistillSettings':
        """Settings of a config or a call, checked.

        Args:
            settings (Mapping): By name.
            owner (str): Where they are written, for messages.

        Raises:
            DMSError: If one is unknown or cannot be meant.
        """
        if not isinstance(settings, Mapping):
            raise DMSError(
                f'`{owner}` must be a dict such as dict(temperature=2.0), '
                f'got {settings!r}.'
            )
        for key in settings:
            if key not in cls._fields:
                known = list(cls._fields)
                raise DMSError(
                    f'`{owner}.{key}` is unknown; it takes {known}.'
                )
        made = cls(**{k: _as_tuple(k, v) for k, v in settings.items()})
        for key in ('temperature', 'weight', 'task_weight', 'hidden_weight'):
            value = getattr(made, key)
            least = 1e-6 if key == 'temperature' else 0
            is_number = isinstance(value, (int, float))
            if not (is_number and least <= value < float('inf')):
                raise DMSError(
                    f'`{owner}.{key}` must be a number '
                    f'{"> 0" if least else ">= 0"}, got {value!r}.'
                )
        return made


def _as_tuple(key: str, value: Any) -> Any:
    if key in ('logits', 'hidden') and isinstance(value, str):
        return (value,)
    if key in ('logits', 'hidden'):
        return tuple(value)
    return value
