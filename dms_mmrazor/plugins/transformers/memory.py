"""Memory of a search with frozen weights, worked out without any of it.

The model is built on the device ``meta``, where tensors have shapes alone;
what a layer keeps for its backward pass is read off autograd there. With
``with_cp`` a layer keeps its input and computes the rest again, so that what
is inside a layer counts once. Not in it: what kernels need for a moment, the
context of a GPU, and fragments that an allocator cannot use.
"""

from typing import Any, Callable, Dict, Mapping, Optional

import torch
from torch import Tensor, nn

from dms_mmrazor.plugins.transformers.decoders import decoders
from dms_mmrazor.plugins.transformers.loading import (
    as_dtype,
    import_transformers,
)
from dms_mmrazor.search.distillation_losses import distillation_loss

TOTAL = 'in all'

_STATE = 64
"""Bytes of a searched element: importance, mask, their gradients and so on,
16 floats at most."""


def kept_bytes(run: Callable[[], Any], own: Optional[nn.Module] = None) -> int:
    """Bytes that autograd keeps for the backward pass of what is run.

    Args:
        run (Callable): Gives something with a graph.
        own (nn.Module, optional): Whose parameters do not count. Defaults
            to None.
    """
    # Without values, storages have no addresses; held, they stay different.
    found: Dict[int, Any] = {}
    skipped = {
        p.untyped_storage()._cdata
        for p in (own.parameters() if own is not None else ())
    }

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in skipped:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    del result
    return sum(storage.nbytes() for storage in found.values())


def search_memory(
    config: Mapping[str, Any],
    batch: int,
    window: int,
    dtype: str = 'bfloat16',
) -> Dict[str, int]:
    """Bytes of a search with frozen weights, ``with_cp`` and a teacher.

    Args:
        config (Mapping): ``model_type`` and arguments of its config.
        batch (int): Windows of a step.
        window (int): Tokens of a window.
        dtype (str): Of the weights. Defaults to 'bfloat16'.

    Returns:
        dict[str, int]: By what takes it, 'in all' last. The teacher is the
        supernet itself and has no row but its logits.
    """
    transformers = import_transformers()
    settings = dict(config)
    made = transformers.AutoConfig.for_model(
        settings.pop('model_type'), **settings
    )
    kind = as_dtype(dtype)
    with torch.device('meta'):
        model = transformers.AutoModelForCausalLM.from_config(made, dtype=kind)
        model.requires_grad_(False)
        ((_, decoder),) = decoders(model)
        parts = _parts(decoder, model, (batch, window), kind)
    parts[TOTAL] = sum(parts.values())
    return parts


def _parts(
    decoder: nn.Module, model: nn.Module, shape: Any, kind: torch.dtype
) -> Dict[str, int]:
    """Each row of it, on the device meta."""
    layer = decoder.layers[0]
    width = decoder.embed_tokens.embedding_dim
    states = torch.empty(*shape, width, dtype=kind).requires_grad_()
    attention, ffn = layer.self_attn.o_proj, layer.mlp.down_proj
    masked = (attention.weight, ffn.weight)
    logits = torch.empty(*shape, model.config.vocab_size, dtype=kind)
    student = logits.clone().requires_grad_()
    number = len(decoder.layers)
    elements = attention.in_features + ffn.in_features
    return {
        'weights, frozen': _bytes(model.parameters()),
        'searched elements': number * elements * _STATE,
        'inputs of the layers': number * _bytes([states]),
        'inside one layer, computed again': kept_bytes(
            lambda: _run(layer, states), layer
        ),
        'masked weights of one layer': _bytes(masked),
        'logits, losses and their gradients': 2 * _bytes([logits])
        # In single precision, with the gradients of what is kept.
        + 2 * kept_bytes(lambda: distillation_loss(student, logits)),
    }


def _run(layer: nn.Module, states: Tensor) -> Any:
    """A layer alone; its attention takes the kernel that keeps little."""
    shape = (1, states.shape[1], layer.self_attn.head_dim)
    turned = torch.empty(shape, dtype=states.dtype)
    return layer(states, position_embeddings=(turned, turned))


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def rows(parts: Mapping[str, int]) -> str:
    """A table in Markdown, in GB (10⁹ bytes)."""
    lines = ['| what | GB |', '|---|---|']
    lines += [f'| {name} | {size / 1e9:.2f} |' for name, size in parts.items()]
    return '\n'.join(lines)
