"""Masks on activations: what masks folded into weights must equal.

Written from the formulas x' = m ⊙ x, y' = m ⊙ y and x + m · f(x) alone, as
hooks around the plain layers. The benchmarks compare with it, too.
"""

from typing import Any, Callable, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

Read = Callable[[], Optional[Tensor]]


def unfold(search: nn.Module) -> nn.Module:
    """Let the layers of a search mask activations instead of weights.

    Args:
        search (nn.Module): A ``DMSAlgorithm``; it is changed.

    Returns:
        nn.Module: The same search.
    """
    from dms_mmrazor.layers.dms_op import DMSOp
    from dms_mmrazor.layers.layer_norm import DMSLayerNorm

    for layer in search.architecture.modules():
        if not isinstance(layer, DMSOp) or type(layer).__name__ == 'DMSGRN':
            continue  # GRN has nothing to fold
        container = layer.get_mutable_attr('in_channels')
        if container is not None and isinstance(layer, DMSLayerNorm):
            layer.normalize = MaskedLayerNorm(layer, container)
        elif container is not None:
            layer.register_forward_pre_hook(MaskInput(container))
        for handle in (layer.rows, layer.depth):
            if handle is not None:
                layer.register_forward_hook(MaskOutput(handle))
        layer.mutable_attrs = nn.ModuleDict()
        layer.rows = layer.depth = layer.given = None
    return search


def by_channel(layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """A mask as it multiplies the activations of a layer."""
    if mask.dim() == 0 or isinstance(layer, (nn.Linear, nn.LayerNorm)):
        return mask
    return mask.view(1, -1, *[1] * (x.dim() - 2))


class MaskInput:
    """x' = m ⊙ x, as torch calls a hook before a layer."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, layer: nn.Module, args: Tuple[Any, ...]) -> Any:
        mask = self.source.mask
        if mask is None:
            return args
        return (args[0] * by_channel(layer, args[0], mask), *args[1:])


class MaskOutput:
    """y' = m ⊙ y, as torch calls a hook behind a layer."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        mask = self.source.mask
        if mask is None:
            return output
        return output * by_channel(layer, output, mask)


class MaskedLayerNorm:
    """Layer norm with statistics weighted by the masks of its features."""

    def __init__(self, layer: nn.LayerNorm, source: Any) -> None:
        self.layers = (layer,)
        self.source = source

    def __call__(self, x: Tensor) -> Tensor:
        (layer,) = self.layers
        mask = self.source.mask
        if mask is None:
            mask = torch.ones_like(x[0, 0])
        mean = (x * mask).sum(-1, keepdim=True) / mask.sum()
        square = (x - mean).square() * mask
        var = square.sum(-1, keepdim=True) / mask.sum()
        out = (x - mean) / (var + layer.eps).sqrt()
        if layer.weight is not None:
            out = out * layer.weight + layer.bias
        return out


def gradients(search: nn.Module, data: Dict[str, Any]) -> Dict[str, Tensor]:
    """Loss and all gradients of one training step, by name."""
    search.train()
    search.zero_grad()
    losses = search(**data, mode='loss')
    loss = sum(v for k, v in losses.items() if 'loss' in k)
    loss.backward()
    found = {'loss': loss.detach()}
    for name, parameter in search.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad.clone()
    masks = search.mutator.masks
    found['masks'] = masks.take_gradient(None)
    found['ratios'] = masks.ratio_gradient(found['masks'])
    return found
