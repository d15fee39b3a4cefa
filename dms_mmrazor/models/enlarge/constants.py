"""Build a model with other constants of its classes.

Many backbones keep their numbers of blocks and channels in a class constant,
such as ``MobileNetV2.arch_settings``, which no config can reach.
"""

from copy import deepcopy
from typing import Any, Dict, List, Mapping, Tuple

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS

Config = Dict[str, Any]


def build_with_constants(
    architecture: Config, constants: Mapping[str, Any]
) -> nn.Module:
    """Build an architecture whose parts see other class constants.

    A part is built as a subclass that has the constants and then turned
    into its own class again; the class itself stays as it is.

    Args:
        architecture (dict): Config of a model; it is not changed.
        constants (Mapping[str, Any]): Path of a part in the config and its
            constant, ``backbone.arch_settings``, → value.

    Returns:
        nn.Module: The model, of its own classes. Its parts have the values
        as attributes of their own.

    Raises:
        DMSError: If there is no such part or constant.
    """
    architecture = deepcopy(architecture)
    wanted: Dict[str, Config] = {}
    for key, value in constants.items():
        path, _, name = key.rpartition('.')
        wanted.setdefault(path, {})[name] = value
    kinds: List[Tuple[type, type, Config]] = []
    for path, values in wanted.items():
        part = _part(architecture, path)
        kind = _class_of(part, path)
        for name in values:
            _check_constant(kind, path, name)
        temporary = type(kind.__name__, (kind,), dict(values))
        part['type'] = temporary
        kinds.append((temporary, kind, values))
    model = MODELS.build(architecture)
    for module in model.modules():
        for temporary, kind, values in kinds:
            if type(module) is temporary:
                module.__class__ = kind
                for name, value in values.items():
                    setattr(module, name, value)
    return model


def _part(architecture: Config, path: str) -> Config:
    """The config of a part, such as that of the backbone."""
    part: Any = architecture
    for name in path.split('.') if path else ():
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, dict) or 'type' not in part:
        parts = [k for k, v in architecture.items() if isinstance(v, dict)]
        raise DMSError(
            f'`constants` names the part {path!r}, which the config of the '
            f'architecture does not have; it has {", ".join(parts)}.'
        )
    return part


def _class_of(part: Config, path: str) -> type:
    """The class that a part will be built of."""
    kind = part['type']
    if isinstance(kind, str):
        scope = part.get('_scope_')
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(part['type'])
    if not isinstance(kind, type):
        raise DMSError(
            f'`constants`: the type of {path!r}, {part["type"]!r}, is no '
            'registered class.'
        )
    return kind


def _check_constant(kind: type, path: str, name: str) -> None:
    found = [
        key
        for base in kind.__mro__
        if base.__module__.partition('.')[0] not in ('torch', 'builtins')
        for key, value in vars(base).items()
        if not key.startswith('_') and isinstance(value, (dict, list, tuple))
    ]
    if name not in found:
        raise DMSError(
            f'`constants`: {kind.__name__} ({path!r}) has no constant '
            f'{name!r}; it has {", ".join(found) or "none"}.'
        )
