"""torchvision's transformers and detectors.

The attention of its Swin calls no layer: it hands the weights of its ``qkv``
and ``proj`` to a function. In a supernet it calls both layers, which have the
masks. What is exported is cut down and reads their weights, as the stock
module does.
"""

import math
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import evaluating
from dms_mmrazor.graph.model_kind import (
    Forward,
    ModelKind,
    register_model,
)
from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionKind,
    attention_kind,
    heads_of,
)
from dms_mmrazor.layers.block import BlockKind, register_block
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import Call
from dms_mmrazor.registry import MODELS

_APART = -100.0
"""Added to the scores of tokens that only the shift brought together."""

_LARGEST_SCALE = math.log(100.0)
"""Of the logarithms of the scales of a cosine attention."""


@register_block
class VisionTransformerKind(BlockKind):
    """A vision transformer; its attentions are torch's."""

    names = ('torchvision.models.vision_transformer.VisionTransformer',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The width by which it flattens the patches."""
        block.hidden_dim = block.conv_proj.out_channels


class Windows:
    """How a feature map is cut into windows, shifted or not.

    Args:
        module (nn.Module): Has ``window_size`` and ``shift_size``, both
            (height, width).
        shape (tuple): (B, H, W, C) of the map.

    Attributes:
        rows (tuple[int, int]): Windows below and beside one another.
        tokens (int): Tokens of a window.
        number (int): Windows of all images.
    """

    def __init__(self, module: nn.Module, shape: Tuple[int, ...]) -> None:
        self._shape, self._window = shape[1:3], tuple(module.window_size)
        pairs = list(zip(self._shape, self._window))
        self.rows = tuple(-(-size // window) for size, window in pairs)
        self._padded = tuple(n * w for n, w in zip(self.rows, self._window))
        # With a single window there is nowhere to shift.
        self._shift = tuple(
            shift if size > window else 0
            for shift, (size, window) in zip(module.shift_size, pairs)
        )
        self.tokens = self._window[0] * self._window[1]
        self.number = shape[0] * self.rows[0] * self.rows[1]

    def cut(self, x: Tensor) -> Tensor:
        """[B, H, W, C] as windows [B * windows, tokens, C]."""
        bottom, right = (p - n for p, n in zip(self._padded, self._shape))
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        if any(self._shift):
            x = x.roll([-shift for shift in self._shift], dims=(1, 2))
        return self._partition(x)

    def _partition(self, x: Tensor) -> Tensor:
        (down, beside), (height, width) = self.rows, self._window
        x = x.view(x.shape[0], down, height, beside, width, x.shape[-1])
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def join(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`cut`."""
        x = x.view(-1, *self.rows, *self._window, x.shape[-1])
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if any(self._shift):
            x = x.roll(self._shift, dims=(1, 2))
        height, width = self._shape
        return x[:, :height, :width].contiguous()

    def mask(self, like: Tensor) -> Optional[Tensor]:
        """What keeps tokens apart that only the shift brought together.

        Args:
            like (Tensor): Any tensor of the wanted device and type.

        Returns:
            Tensor, optional: [windows, 1, tokens, tokens], added to the
            scores of each image; ``None`` without a shift.
        """
        if not any(self._shift):
            return None
        down, beside = (self._regions(axis) for axis in range(2))
        regions = (3 * down[:, None] + beside)[None, :, :, None]
        region = self._partition(regions)[..., 0]
        apart = region[:, None, :, None] != region[:, None, None]
        return _APART * apart.to(like.device, like.dtype)

    def _regions(self, axis: int) -> Tensor:
        """Along one axis: the whole windows, then the parts of the last."""
        size, shift = self._padded[axis], self._shift[axis]
        index = torch.arange(size)
        last = (index >= size - self._window[axis]).long()
        return last + (index >= size - shift).long() if shift else 0 * last


class AnyDims:
    """An attention within shifted windows with any numbers of heads and dims.

    Mixed into torchvision's, whose parameters it has.

    Attributes:
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head; those of the full
            attention where they are not set.
        v_dims (int): Dims of v of a head, likewise.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attention within windows of [B, H, W, C]."""
        windows = Windows(self, x.shape)
        mask = windows.mask(x)
        rows = self.apply_layer(self.qkv, windows.cut(x))
        x = self.apply_layer(self.proj, self._attend(rows, mask))
        return windows.join(F.dropout(x, self.dropout, self.training))

    def apply_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Apply the weights of a linear layer without calling it."""
        return F.linear(x, layer.weight, layer.bias)

    def _attend(self, rows: Tensor, mask: Optional[Tensor]) -> Tensor:
        """What the heads give, [windows, N, H * E].

        Args:
            rows (Tensor): q, k and v [windows, N, H * (2 D + E)].
            mask (Tensor, optional): [windows of an image, 1, N, N].
        """
        query, key, value = self._split(rows)
        scores = query @ key.transpose(-2, -1)
        scores = scores + self.get_relative_position_bias()
        if mask is not None:
            scores = scores.view(-1, len(mask), *scores.shape[1:]) + mask
            scores = scores.flatten(0, 1)
        weights = scores.softmax(-1)
        weights = F.dropout(weights, self.attention_dropout, self.training)
        return (weights @ value).transpose(1, 2).flatten(2)

    def _split(self, rows: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Scaled q [windows, H, N, D], k, and v [windows, H, N, E]."""
        sizes = attention_kind(self).sizes(self)
        heads, qk, v = sizes[HEADS], sizes[QK_DIMS], sizes[V_DIMS]
        query, key, value = heads_of(rows, heads, qk, v)
        if not hasattr(self, 'logit_scale'):
            return query * qk**-0.5, key, value
        if self.qkv.bias is not None:  # that of k is not meant
            shift = self.qkv.bias[heads * qk : 2 * heads * qk]
            key = key - shift.view(heads, 1, qk)
        scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        query = F.normalize(query, dim=-1) * scale
        return query, F.normalize(key, dim=-1), value


class SlimShiftedWindowAttention(AnyDims, ShiftedWindowAttention):
    """What ``ShiftedWindowAttention`` becomes in an exported model."""


class SlimShiftedWindowAttentionV2(AnyDims, ShiftedWindowAttentionV2):
    """What ``ShiftedWindowAttentionV2`` becomes in an exported model."""


class CallingWindows(AnyDims, DMSOp):
    """Such an attention in a supernet: its layers have the masks."""

    def apply_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Call it."""
        return layer(x)


@MODELS.register_module()
class DMSShiftedWindowAttention(CallingWindows, ShiftedWindowAttention):
    """``ShiftedWindowAttention`` that calls its layers."""


@MODELS.register_module()
class DMSShiftedWindowAttentionV2(CallingWindows, ShiftedWindowAttentionV2):
    """``ShiftedWindowAttentionV2`` that calls its layers."""


@register_block
class ShiftedWindowsKind(AttentionKind):
    """Attention within the shifted windows of a Swin transformer."""

    types = (ShiftedWindowAttention, DMSShiftedWindowAttention)
    slim = SlimShiftedWindowAttention
    uncalled: ClassVar[Tuple[str, ...]] = ('qkv', 'proj')
    calling: ClassVar[Mapping[type, type]] = {
        ShiftedWindowAttention: DMSShiftedWindowAttention
    }
    pads: ClassVar[bool] = True

    def scales_by_dims(self, block: nn.Module) -> bool:
        """Always."""
        return True

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Pairs of tokens in all windows, and tokens of its layers."""
        windows = Windows(block, call.output.shape)
        tokens = windows.number * windows.tokens
        uncalled = () if isinstance(block, DMSOp) else self.uncalled
        return {'': tokens * windows.tokens, **dict.fromkeys(uncalled, tokens)}


@register_block
class ShiftedWindowsV2Kind(ShiftedWindowsKind):
    """The same with cosines of q and k, and biases by a small network."""

    types = (ShiftedWindowAttentionV2, DMSShiftedWindowAttentionV2)
    slim = SlimShiftedWindowAttentionV2
    calling: ClassVar[Mapping[type, type]] = {
        ShiftedWindowAttentionV2: DMSShiftedWindowAttentionV2
    }
    by_head: ClassVar[Tuple[str, ...]] = ('logit_scale', 'cpb_mlp.2')
    takes_cosines: ClassVar[bool] = True

    def scales_by_dims(self, block: nn.Module) -> bool:
        """It has scales of its own."""
        return False


@register_model
class DetectorKind(ModelKind):
    """Detectors of one stage: their network ends before boxes are chosen."""

    names = (
        'torchvision.models.detection.fcos.FCOS',
        'torchvision.models.detection.retinanet.RetinaNet',
        'torchvision.models.detection.ssd.SSD',
    )

    def example(self, model: nn.Module, inputs: Any) -> Any:
        """Images as its transform resizes and pads them."""
        if isinstance(inputs, Tensor):
            return inputs
        images = _images(inputs)
        if images is None:
            raise DMSError(
                f'`example_inputs` of a {type(model).__name__} must be a list '
                'of images [3, H, W], or a batch [B, 3, H, W] as its '
                '`transform` gives it.'
            )
        with evaluating(model):
            return model.transform(images)[0].tensors

    def extras(
        self, model: nn.Module, shape: Sequence[int], few: bool = False
    ) -> Optional[Forward]:
        """Backbone and head, on a batch of images."""

        def tensors(
            model: nn.Module, forward: Callable[..., Any], images: Tensor
        ) -> Any:
            features = model.backbone(images)
            if isinstance(features, Tensor):
                features = {'0': features}
            return model.head(list(features.values()))

        return tensors

    def why_not_onnx(self, model: nn.Module) -> str:
        """The choice of boxes."""
        return 'its boxes are chosen by code; export it by torchvision itself'


@register_model
class TwoStageKind(ModelKind):
    """Detectors whose second stage looks at regions."""

    names = ('torchvision.models.detection.generalized_rcnn.GeneralizedRCNN',)

    def example(self, model: nn.Module, inputs: Any) -> Any:
        """None."""
        raise DMSError(
            f'{type(model).__name__}: its second stage sees regions that '
            'scores choose, which no search follows. Search the network '
            'before it, `Search(model.backbone, images, ...)` with a batch '
            'of images; `model` itself can be trained meanwhile.'
        )


def _images(inputs: Any) -> Optional[Sequence[Tensor]]:
    """The list of images among what a detector is called with."""
    for found in (inputs, next(iter(inputs), None)):
        if isinstance(found, (list, tuple)) and all(
            isinstance(image, Tensor) and image.dim() == 3 for image in found
        ):
            return found
    return None
