"""How a teacher is listened to, as a config or a call says it."""

from fnmatch import fnmatchcase
from typing import Any, List, Mapping, NamedTuple, Sequence, Tuple

from torch import nn

from dms_mmrazor.errors import DMSError

HEADS = ('lm_head', 'head.fc', 'fc', 'classifier', 'head')
"""Last layers that are looked for, in this order."""


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
        _check_teacher(made.teacher, owner)
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


def _check_teacher(teacher: Any, owner: str) -> None:
    """Raise unless it is a model, or in a config one's description."""
    if teacher is None or isinstance(teacher, nn.Module):
        return
    advice = 'a model; `load_model(folder)` reads a language model'
    if owner.startswith('model.'):
        if isinstance(teacher, Mapping):
            return
        advice = "a model's config: dict(type='mmrazor.CausalLM', folder=…)"
    raise DMSError(f'`{owner}.teacher` must be {advice}. It is {teacher!r}.')


def _as_tuple(key: str, value: Any) -> Any:
    if key in ('logits', 'hidden') and isinstance(value, str):
        return (value,)
    if key in ('logits', 'hidden'):
        return tuple(value)
    return value


def usual_head(names: Sequence[str], owner: str) -> Tuple[str, ...]:
    """The last layer of a usual model."""
    for head in HEADS:
        for name in names:
            if name == head or name.endswith(f'.{head}'):
                return (name,)
    raise DMSError(
        f'`{owner}.logits` must name the modules that give the logits, such '
        f'as {names[-1:]}: the model has none of {list(HEADS)}.'
    )


def matching(
    names: Sequence[str], patterns: Sequence[str], key: str
) -> List[str]:
    """Names of modules that patterns stand for."""
    found: List[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise DMSError(f'`{key}` names {pattern!r}, which is no module.')
        found += matches
    return list(dict.fromkeys(found))
