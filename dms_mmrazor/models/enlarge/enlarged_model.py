"""Build a larger model from the config of a smaller one."""

from copy import deepcopy
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from torch import nn

from dms_mmrazor.errors import DMSError, raise_device_error
from dms_mmrazor.graph.demo import (
    check_input,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.models.enlarge.deepen import deepen as deepen_stages
from dms_mmrazor.models.enlarge.widen import widen as widen_units
from dms_mmrazor.registry import MODELS, check_architecture

Config = Dict[str, Any]


@MODELS.register_module()
def EnlargedModel(  # noqa: N802
    architecture: Config,
    constants: Optional[Mapping[str, Any]] = None,
    deepen: Union[float, Mapping[str, float], None] = None,
    widen: Union[float, Mapping[str, float], None] = None,
    demo_input: Tuple[int, ...] = (1, 3, 224, 224),
    init_cfg: Optional[Config] = None,
    **kwargs: Any,
) -> nn.Module:
    """The architecture, made wider and deeper: a plain model to search.

    The paper enlarges a baseline to get its supernet (section A.4.1); use
    this where the config of the model has no setting for it. Like
    ``DMSSubModel`` it is a function: what it returns is the architecture's
    own class. It stands wherever the architecture's config does: in a
    search, in ``DMSSubModel``, or as ``model`` to train the supernet.

    Args:
        architecture (dict): The architecture's config.
        constants (Mapping[str, Any], optional): Other class constants that
            parts of the model are built with, such as
            ``{'backbone.arch_settings': [...]}``: the most exact way where
            there is one. Defaults to None.
        deepen (float | Mapping[str, float], optional): Factor of the number
            of blocks of all stages, or name or pattern of stages → factor.
            Defaults to None.
        widen (float | Mapping[str, float], optional): Factor of all widths,
            or name or pattern of width units → factor. Defaults to None.
        demo_input (tuple): (B, C, H, W) of an input that the model can
            read. Defaults to (1, 3, 224, 224).
        init_cfg (dict, optional): Weights of the enlarged model, such as
            ``dict(type='Pretrained', checkpoint=…)``. Defaults to None: the
            architecture's own initialization.
        **kwargs: Set in the architecture's config unless it has them (the
            runner adds ``data_preprocessor`` so).

    Returns:
        nn.Module: The plain enlarged model.

    Raises:
        DMSError: If a name matches nothing, a factor is below 1, the
            architecture names a checkpoint, or its code does not follow.
    """
    check_architecture(architecture)
    check_input('EnlargedModel.demo_input', demo_input)
    model = build_with_constants({**kwargs, **architecture}, constants or {})
    _refuse_checkpoints(model)
    if deepen is not None or widen is not None:
        advice = f'set another `demo_input` than {tuple(demo_input)}'
        _check_forward(model, demo_input, advice)
    if deepen is not None:
        deepen_stages(model, deepen, demo_input)
    if widen is not None:
        widen_units(model, widen, demo_input)
        advice = 'its code relies on widths: restrict `widen` to other units'
        _check_forward(model, demo_input, advice)
    if init_cfg is not None:
        model.init_cfg = init_cfg
    return model


def _refuse_checkpoints(model: nn.Module) -> None:
    """Raise if weights of the smaller model would be loaded."""
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None)
        for cfg in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            if not isinstance(cfg, dict) or cfg.get('type') != 'Pretrained':
                continue
            key = f'architecture.{name}.init_cfg'.replace('..', '.')
            raise DMSError(
                f'EnlargedModel: `{key}` names {cfg.get("checkpoint")}, '
                'whose shapes are those of the smaller model; give weights '
                "of the enlarged one by EnlargedModel's own `init_cfg`."
            )


def _check_forward(
    model: nn.Module, demo_input: Tuple[int, ...], advice: str
) -> None:
    """Raise unless the model can compute."""
    try:
        with evaluating(model):
            forward_tensors(model, demo_tensor(model, demo_input))
    except Exception as error:  # whatever a module's code may raise
        raise_device_error(error)
        line = ' '.join(str(error).split())
        raise DMSError(
            f'EnlargedModel: {type(model).__name__} does not run ({line}); '
            f'{advice}.'
        ) from error


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
