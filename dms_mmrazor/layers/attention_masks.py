"""The masks of attention, attached to its two linear layers."""

from typing import Optional

import torch
from torch import Tensor, nn

from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    attention_kind,
)
from dms_mmrazor.layers.dms_op import RowMask, replace_with_dynamic
from dms_mmrazor.layers.kind import channels_of
from dms_mmrazor.models.mutables import (
    DMSChannelContainer,
    DMSMutableChannel,
    Places,
    beside,
)


class QueryMask(RowMask):
    """Mask of the outputs of ``qkv``: that of the q/k dims, on q alone.

    Args:
        mutable (DMSMutableChannel): The q/k dims.
        heads (int): Number of heads H of the supernet.
        size (int): Outputs of ``qkv``.
    """

    def __init__(
        self, mutable: DMSMutableChannel, heads: int, size: int
    ) -> None:
        self.mutable = mutable
        self.heads = heads
        self.size = size

    @property
    def places(self) -> Optional[Places]:
        """Of the q/k dims for each head of q, 1 for k and v."""
        places = self.mutable.places
        if places is None:
            return None
        query = places.index.repeat(1, self.heads)
        others = torch.full((1, self.size - query.shape[1]), -1)
        return Places(places.table, beside([query, others]))


class HeadContainer(DMSChannelContainer):
    """Masks of the input of ``proj``: heads times v dims.

    Args:
        heads (int): Number of heads H of the supernet.
        v_dims (int): Dims of v E of the supernet.
    """

    def __init__(self, heads: int, v_dims: int) -> None:
        super().__init__(heads * v_dims)
        self.sizes = {HEADS: heads, V_DIMS: v_dims}
        self.factors = nn.ModuleDict()

    @property
    def places(self) -> Optional[Places]:
        """The product of those of a head and of a dim."""
        rows = []
        found = {key: m.places for key, m in self.factors.items()}
        for key, places in sorted(found.items()):
            if places is not None and key == HEADS:
                dims = self.sizes[V_DIMS]
                rows.append(places.index.repeat_interleave(dims, dim=1))
            elif places is not None:
                rows.append(places.index.repeat(1, self.sizes[HEADS]))
        tables = [p.table for p in found.values() if p is not None]
        return Places(tables[0], torch.cat(rows)) if rows else None

    @property
    def current_mask(self) -> Tensor:
        """bool [H * E]: what an export now would keep."""
        masks = {k: m.current_mask.cpu() for k, m in self.factors.items()}
        heads, dims = (
            masks.get(key, torch.ones(self.sizes[key], dtype=torch.bool))
            for key in (HEADS, V_DIMS)
        )
        return (heads[:, None] * dims).flatten()


def attach_attention(
    model: nn.Module, name: str, mutable: DMSMutableChannel
) -> nn.Module:
    """Let the linear layers of an attention read one of its masks.

    Args:
        model (nn.Module): The supernet.
        name (str): Full name of the heads or dims.
        mutable (DMSMutableChannel): What chooses them.

    Returns:
        nn.Module: The attention.
    """
    owner, _, kind = name.rpartition('.')
    module = model.get_submodule(owner)
    attention = attention_kind(module)
    sizes = attention.sizes(module)
    # The first of its input layers gives q.
    names = [
        '.'.join(filter(None, (owner, layer)))
        for layer in (attention.input_layers[0], attention.output_layer)
    ]
    if names[0] == owner:  # its weights are its own, not those of a layer
        replace_with_dynamic(model, owner)
    if kind == QK_DIMS:
        qkv = replace_with_dynamic(model, names[0])
        rows = channels_of(qkv, False)
        qkv.rows = QueryMask(mutable, sizes[HEADS], rows)
        return model.get_submodule(owner)
    proj = replace_with_dynamic(model, names[1])
    container = proj.get_mutable_attr('in_channels')
    if container is None:
        container = HeadContainer(sizes[HEADS], sizes[V_DIMS])
        proj.register_mutable_attr('in_channels', container)
    container.factors[kind] = mutable
    return model.get_submodule(owner)  # which may be another one now
