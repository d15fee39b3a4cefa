"""Build the plain model of a found structure from a config."""

from typing import Any, Dict, Optional, Tuple, Union

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS, check_architecture
from dms_mmrazor.subnet.foreign_weights import refuse_foreign_weights
from dms_mmrazor.subnet.structure import (
    Structure,
    load_structure,
    structure_from_dict,
)
from dms_mmrazor.subnet.surgery import prune
from dms_mmrazor.type_names import has_type


@MODELS.register_module()
def DMSSubModel(  # noqa: N802
    architecture: Union[Dict[str, Any], nn.Module, None] = None,
    structure: Union[str, Dict[str, Any], Structure, None] = None,
    init_cfg: Optional[Dict[str, Any]] = None,
    **kwargs: Any,
) -> nn.Module:
    """The architecture, cut down to a structure: a plain static model.

    Like mmrazor's ``sub_model``, this is a function: what it returns is the
    architecture's own class, with its own keys.

    Args:
        architecture (dict | nn.Module): The supernet's architecture. Needed.
        structure (str | dict | Structure): ``subnet.yaml`` of a search, or
            its content. Needed.
        init_cfg (dict, optional): Weights of the subnet, such as
            ``dict(type='Pretrained', checkpoint='…/subnet.pth')``. Defaults
            to None: the architecture's own initialization (a checkpoint of
            the supernet named there does not fit and is dropped).
        **kwargs: Set in the architecture's config unless it has them (the
            runner adds ``data_preprocessor`` so; mmdet's ``init_detector``
            reads ``model.backbone`` of a config, for which an empty dict
            is enough).

    Returns:
        nn.Module: The plain subnet.

    Raises:
        DMSError: If the structure is broken or of another architecture;
            later, if weights of another network are loaded.
    """
    if isinstance(structure, str):
        structure = load_structure(structure)
    elif isinstance(structure, dict):
        structure = structure_from_dict(structure)
    elif not isinstance(structure, Structure):
        raise DMSError(
            '`model.structure` must be the path of the `subnet.yaml` that a '
            f'search has written, got {structure!r}.'
        )
    check_architecture(architecture)
    if isinstance(architecture, dict):
        architecture = MODELS.build({**kwargs, **architecture})
    elif kwargs:
        raise DMSError(
            f'{sorted(kwargs)} cannot be set on an architecture that is '
            'already built.'
        )
    _drop_supernet_weights(architecture)
    if init_cfg is not None:
        architecture.init_cfg = init_cfg
    subnet = prune(architecture, structure)
    refuse_foreign_weights(subnet)
    return subnet


def find_sub_model(
    model: Any, key: str = 'model'
) -> Optional[Tuple[str, Dict[str, Any]]]:
    """Where a model of a config is a :func:`DMSSubModel`, or has one inside.

    Args:
        model (Any): Of a config.
        key (str): Where it stands. Defaults to 'model'.

    Returns:
        tuple[str, dict], optional: Key, such as 'model.architecture', and
        the part itself; None if there is none.
    """
    while isinstance(model, dict) and not has_type(model, 'DMSSubModel'):
        model, key = model.get('architecture'), f'{key}.architecture'
    return (key, model) if isinstance(model, dict) else None


def _drop_supernet_weights(model: nn.Module) -> None:
    """Forget checkpoints of the supernet: their shapes do not fit."""
    for module in model.modules():
        init_cfg = getattr(module, 'init_cfg', None)
        several = isinstance(init_cfg, (list, tuple))
        cfgs = list(init_cfg) if several else [init_cfg]
        left = [cfg for cfg in cfgs if not _is_pretrained(cfg)]
        if len(left) < len(cfgs):
            module.init_cfg = left or None


def _is_pretrained(init_cfg: Any) -> bool:
    """Whether it is a checkpoint that initializes a module."""
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
