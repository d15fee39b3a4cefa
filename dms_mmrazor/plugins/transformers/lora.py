"""Adapters of low rank (LoRA) for the finetuning of a found model.

Each chosen linear layer computes ``W x + alpha / rank · B A x`` where A and B
alone are trained. They are ``peft``'s, put into the layers as these are after
a search, each with its own sizes. Merged, the model is plain again.
"""

import importlib
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.folder import language_model
from dms_mmrazor.plugins.transformers.loading import LORA_SCALE, has_lora
from dms_mmrazor.registry import MODELS, check_architecture

LAYERS = (
    'q_proj',
    'k_proj',
    'v_proj',
    'o_proj',
    'gate_proj',
    'up_proj',
    'down_proj',
)
"""Linear layers of a decoder layer."""


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: Optional[float] = None,
    dropout: float = 0.0,
    layers: Sequence[str] = LAYERS,
) -> List[str]:
    """Freeze a language model and give its layers adapters, in place.

    Weights of the model without adapters can still be loaded into it.

    Args:
        model (nn.Module): Of transformers, or :class:`CausalLM` around it.
        rank (int): Of A and B.
        alpha (float, optional): Adapters are scaled by ``alpha / rank``.
            Defaults to None, twice the rank.
        dropout (float): Of the adapters' inputs, in training. Defaults to 0.
        layers (Sequence[str]): Last parts of the names of the layers.
            Defaults to all linear layers of a decoder layer.

    Returns:
        list[str]: Names of these layers in the model of transformers.

    Raises:
        DMSError: If peft is missing, the model has adapters already, a
            setting cannot be meant or no layer has such a name.
    """
    inner = language_model(model)
    alpha = 2.0 * rank if alpha is None else alpha
    _check(inner, rank, alpha, dropout, layers)
    peft = _import_peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(layers),
    )
    peft.inject_adapter_in_model(config, inner)
    for parameter in inner.parameters():
        if parameter.requires_grad:
            # Small steps would be lost in half precision.
            parameter.data = parameter.data.float()
    # Files say by it what the adapters are worth.
    scale = torch.tensor(alpha / rank, device=inner.device)
    inner.register_buffer(LORA_SCALE, scale)
    _accept_plain_weights(model)
    return [name for name, _ in _adapted(inner)]


def _check(
    model: nn.Module,
    rank: int,
    alpha: float,
    dropout: float,
    layers: Sequence[str],
) -> None:
    """Refuse what cannot be meant."""
    if has_lora(model):
        raise DMSError('LoRA: the model has adapters already.')
    if type(rank) is not int or rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise DMSError(
            'LoRA: `rank` must be a whole number of at least 1, `alpha` '
            f'positive and `dropout` in [0, 1), got {rank!r}, {alpha!r} and '
            f'{dropout!r}.'
        )
    known = {
        name.rpartition('.')[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise DMSError(
            f'LoRA: `layers` must be names out of {sorted(known)}, got '
            f'{list(layers)}.'
        )


def _import_peft() -> Any:
    """The package; a DMSError says how to get it."""
    try:
        return importlib.import_module('peft')
    except ImportError:
        raise DMSError(
            'LoRA needs the package peft: install `dms_mmrazor[llama,lora]`.'
        ) from None


def _adapted(model: nn.Module) -> List[Tuple[str, nn.Module]]:
    """Layers with adapters."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, 'lora_A') and hasattr(module, 'base_layer')
    ]


def _accept_plain_weights(model: nn.Module) -> None:
    """Let weights without adapters be loaded; adapters stay then."""
    hook = model._register_load_state_dict_pre_hook(_rename, with_module=True)
    # Before that of a subnet, which compares the names.
    model._load_state_dict_pre_hooks.move_to_end(hook.id, last=False)


def _rename(
    model: nn.Module, state: Dict[str, Tensor], prefix: str, *others: Any
) -> None:
    """As torch calls it before weights are loaded into a module."""
    if not any(key.startswith(prefix) for key in state):
        return
    for key, value in model.state_dict().items():
        plain = prefix + key.replace('.base_layer.', '.')
        if prefix + key in state:
            continue
        if plain in state:
            state[prefix + key] = state.pop(plain)
        elif '.lora_' in key or key.endswith(LORA_SCALE):
            state[prefix + key] = value


def merge_lora(model: nn.Module) -> None:
    """Add the adapters to the weights and remove them, in place.

    Args:
        model (nn.Module): What :func:`add_lora` was given.

    Raises:
        DMSError: If it has none.
    """
    inner = language_model(model)
    adapted = _adapted(inner)
    if not adapted:
        raise DMSError('LoRA: there is nothing to merge: call `add_lora`.')
    for name, layer in adapted:
        layer.merge()
        parent, _, own = name.rpartition('.')
        setattr(inner.get_submodule(parent), own, layer.get_base_layer())
    delattr(inner, LORA_SCALE)
    del inner.peft_config
    hooks = model._load_state_dict_pre_hooks
    for number, hook in list(hooks.items()):
        if getattr(hook, 'hook', None) is _rename:
            del hooks[number]
    model.requires_grad_(True)


@MODELS.register_module()
def LoRAModel(  # noqa: N802
    architecture: Union[Dict[str, Any], nn.Module],
    rank: int,
    alpha: Optional[float] = None,
    dropout: float = 0.0,
    layers: Sequence[str] = LAYERS,
    **kwargs: Any,
) -> nn.Module:
    """A language model, all of whose weights but adapters are frozen.

    Like :func:`DMSSubModel` this is a function: it returns the architecture
    itself. Its checkpoints have the adapters; ``tools/export_hf.py
    --weights`` merges them.

    Args:
        architecture (dict | nn.Module): :class:`CausalLM`, or a
            :func:`DMSSubModel` of it.
        rank (int): See :func:`add_lora`, as all that follows.
        alpha (float, optional): Defaults to None, twice the rank.
        dropout (float): Defaults to 0.
        layers (Sequence[str]): Defaults to all of a decoder layer.
        **kwargs: Set in the architecture's config unless it has them.

    Raises:
        DMSError: As :func:`add_lora`.
    """
    check_architecture(architecture)
    if isinstance(architecture, dict):
        architecture = MODELS.build({**kwargs, **architecture})
    add_lora(architecture, rank, alpha, dropout, layers)
    return architecture
