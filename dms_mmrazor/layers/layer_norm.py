"""Layer norms, whose statistics are those of the kept features."""

from functools import lru_cache
from typing import Any, ClassVar, Optional, Tuple, Type

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.fold import fold_depth
from dms_mmrazor.layers.kind import PassingKind, register_kind
from dms_mmrazor.layers.own_layers import derive_masked, normalizes
from dms_mmrazor.registry import MODELS


def masked_layer_norm(
    x: Tensor,
    mask: Tensor,
    weight: Optional[Tensor],
    bias: Optional[Tensor],
    eps: float,
) -> Tensor:
    """LayerNorm with statistics weighted by a mask of the features.

    ``mean = Σ m x / Σ m`` and ``var = Σ m (x − mean)² / Σ m``: for a 0/1
    mask the statistics of the kept features alone, so those come out as
    from the LayerNorm of an exported model. Features with mask 0 come out
    normalized too; the layers that read them multiply them by the mask.

    Args:
        x (Tensor): [..., N].
        mask (Tensor): [N].
        weight (Tensor, optional): [N].
        bias (Tensor, optional): [N].
        eps (float): Added to the variance.

    Returns:
        Tensor: [..., N], at least of the mask's precision.
    """
    out = masked_normalize(x, mask, eps)
    if weight is None:
        return out
    if bias is None:
        return out * weight
    return torch.addcmul(bias, out, weight)


def masked_normalize(x: Tensor, mask: Tensor, eps: float) -> Tensor:
    """:func:`masked_layer_norm` without scale and shift.

    Args:
        x (Tensor): [..., N].
        mask (Tensor): [N].
        eps (float): Added to the variance.

    Returns:
        Tensor: [..., N], at least of the mask's precision.
    """
    x = x.to(torch.promote_types(x.dtype, mask.dtype))
    return _WeightedNorm.apply(x, mask, eps)


def _as_plain(out: Tensor, x: Tensor, weight: Optional[Tensor]) -> Tensor:
    """What the masked norm gives in the type of what the plain one gives.

    That is the type of the weights; autocast computes in single precision.
    """
    if torch.is_autocast_enabled():
        return out
    kind = x.dtype if weight is None else weight.dtype
    return out.to(torch.promote_types(x.dtype, kind))


class _WeightedNorm(torch.autograd.Function):
    """Normalize with statistics weighted by a mask.

    Written out, because autograd would keep six tensors of the size of the
    activation for its backward pass; this one keeps its own output, which
    the layer that reads it keeps anyway. In few passes over few buffers, as
    getting and touching memory is what it costs, and without products of
    matrices, which autocast would compute in half precision.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, eps: float) -> Tensor:
        kept = mask.sum()
        share = mask / kept
        out = x * share
        torch.sub(x, out.sum(-1, keepdim=True), out=out)
        var = torch.linalg.vector_norm(
            out * share.sqrt(), dim=-1, keepdim=True
        ).square_()
        rstd = var.add_(eps).rsqrt_()
        out.mul_(rstd)
        ctx.save_for_backward(out, share, kept, rstd)
        # Compiled, torch 2 computes a wrong gradient of an output it keeps.
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Gradients of x and the mask.

        That of the shares ``mask / kept`` lacks a summand that is the same
        for all features and vanishes in the one of the mask.
        """
        out, share, kept, rstd = ctx.saved_tensors
        buffer = grad * out
        along = buffer.sum(-1, keepdim=True)
        total = grad.sum(-1, keepdim=True)
        torch.mul(out, along, out=buffer).add_(total)
        grad_x = torch.addcmul(grad, buffer, share, value=-1).mul_(rstd)
        buffer.add_(total).mul_(out)  # (2 total + along · out) · out
        grad_share = buffer.flatten(0, -2).sum(0).mul_(-0.5)
        grad_mask = (grad_share - (grad_share * share).sum()) / kept
        return grad_x, grad_mask, None


@MODELS.register_module()
class DMSLayerNorm(DMSOp, nn.LayerNorm):
    """``nn.LayerNorm`` over the last dimension, with masked features."""

    one_sided: ClassVar[bool] = True

    affine_in_reader: bool

    def init_masks(self) -> None:
        """Start without masks, scaling and shifting."""
        super().init_masks()
        self.affine_in_reader = False

    @property
    def leaves_affine(self) -> bool:
        """Whether the layer that reads the output scales and shifts it.

        Only with masks: weights then take what costs three passes over the
        activations and their gradients.
        """
        return self.affine_in_reader and self.masks().inputs is not None

    @property
    def num_features(self) -> int:
        """Number of features."""
        return self.normalized_shape[-1]

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [..., N]."""
        return self.normalize(input)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize [..., N] with the masks of this step."""
        masks = self.masks()
        mask, depth = masks.inputs, masks.depth
        if mask is not None and self.affine_in_reader:
            out = masked_normalize(x, mask, self.eps)
            return _as_plain(out, x, self.weight)
        weight, bias = self.weight, self.bias
        if depth is not None and weight is not None:
            weight, bias = fold_depth(weight, bias, depth)
        if mask is None:
            shape = self.normalized_shape
            out = F.layer_norm(x, shape, weight, bias, self.eps)
        else:
            out = masked_layer_norm(x, mask, weight, bias, self.eps)
            out = _as_plain(out, x, weight)
        if weight is None and depth is not None:
            out = out * depth.to(out.dtype)
        return out


class ChannelFirst(DMSLayerNorm):
    """A layer norm of someone's own class that moves channels itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, C, H, W]."""
        x = self.normalize(x.permute(0, 2, 3, 1))
        return x.permute(0, 3, 1, 2)


@lru_cache(maxsize=None)
def channel_first_norm(kind: type) -> Optional[Type[DMSOp]]:
    """The dynamic class of a layer norm over the channels of [B, C, H, W].

    Such are torchvision's and timm's ``LayerNorm2d``. Classes are told by
    what they compute, as there are many of them.

    Args:
        kind (type): Class of a layer.

    Returns:
        type, optional: ``None`` if it is something else.
    """
    if not issubclass(kind, nn.LayerNorm) or issubclass(kind, DMSOp):
        return None
    image = torch.randn(2, 6, 4, 3, generator=torch.Generator().manual_seed(0))
    try:
        given = kind(6)(image)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise_device_error(error)
        return None  # other arguments, or another dimension
    channels = image.permute(0, 2, 3, 1)
    expected = nn.functional.layer_norm(channels, (6,), eps=kind(6).eps)
    same = isinstance(given, Tensor) and given.shape == image.shape
    if not same or not torch.allclose(
        given, expected.permute(0, 3, 1, 2), atol=1e-5
    ):
        return None
    return type(f'DMS{kind.__name__}', (ChannelFirst, kind), {})


@register_kind
class LayerNormKind(PassingKind):
    """Layer norms over the channels."""

    types = (nn.LayerNorm,)
    masked = {nn.LayerNorm: DMSLayerNorm}

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Also of classes that compute like torch's, or for [B, C, H, W]."""
        found = super().find_masked(layer_type)
        if found is None:
            found = channel_first_norm(layer_type)
        if found is None and normalizes(layer_type, (2, 5, 6)):
            return derive_masked(layer_type, DMSLayerNorm)
        return found

    def unsupported(self, layer: nn.Module) -> str:
        """Statistics that run over more than the channels."""
        if len(layer.normalized_shape) > 1:
            return 'normalizes several dimensions, not supported'
        return ''

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features, the last dimension."""
        return layer.normalized_shape[-1]

    def channels_first(self, layer: nn.Module) -> bool:
        """[..., C]."""
        return False

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its number of features, and mmpretrain's copy of it."""
        layer.normalized_shape = (len(kept),)
        if hasattr(layer, 'num_channels'):
            layer.num_channels = len(kept)
