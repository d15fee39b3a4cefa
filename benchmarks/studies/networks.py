"""Small networks of four kinds, for images of 16×16 pixels.

Plain modules: what a search needs to know it traces itself.
"""

from typing import List, Sequence, Tuple

from torch import Tensor, nn


def conv(
    channels: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: bool = True,
) -> nn.Sequential:
    """Convolution, BatchNorm and (unless told otherwise) ReLU."""
    layers: List[nn.Module] = [
        nn.Conv2d(
            channels,
            out,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out),
    ]
    if act:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two convolutions beside an identity or a strided 1×1 convolution."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, out, stride=stride)
        self.conv2 = conv(out, out, act=False)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = conv(channels, out, 1, stride, act=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, C, H, W] to [B, out, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + identity)


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise 3×3, 1×1 projection; MobileNetV2's block."""

    def __init__(
        self, channels: int, out: int, stride: int, ratio: int
    ) -> None:
        super().__init__()
        inner = channels * ratio
        self.expand = conv(channels, inner, 1)
        self.depthwise = conv(inner, inner, 3, stride, groups=inner)
        self.project = conv(inner, out, 1, act=False)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, C, H, W] to [B, out, H / stride, W / stride]."""
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.shortcut else out


class Classifier(nn.Module):
    """Stem, stages of blocks, global average, linear layer.

    Args:
        stem (nn.Module): Makes the first feature map.
        stages (Sequence[nn.Module]): One after another.
        channels (int): Channels of the last one.
        classes (int): Defaults to 10.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        channels: int,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to scores [B, classes]."""
        x = self.stages(self.stem(x))
        return self.head(self.flatten(self.pool(x)))


def residual(
    widths: Sequence[int] = (16, 32, 64), blocks: int = 4, scale: float = 1.0
) -> nn.Module:
    """A ResNet of basic blocks."""
    widths = [round(width * scale) for width in widths]
    stages, channels = [], widths[0]
    for index, width in enumerate(widths):
        stage = []
        for number in range(blocks):
            stride = 2 if index and not number else 1
            stage.append(BasicBlock(channels, width, stride))
            channels = width
        stages.append(nn.Sequential(*stage))
    return Classifier(conv(3, widths[0]), stages, channels)


def plain(
    widths: Sequence[Tuple[int, ...]] = (
        (24, 24),
        (48, 48),
        (96, 96, 96),
    ),
    scale: float = 1.0,
) -> nn.Module:
    """Convolutions one after another, as VGG: every width is its own."""
    widths = [tuple(round(w * scale) for w in stage) for stage in widths]
    stages, channels = [], widths[0][0]
    for index, stage_widths in enumerate(widths):
        stage: List[nn.Module] = [nn.MaxPool2d(2)] if index else []
        for width in stage_widths:
            stage.append(conv(channels, width))
            channels = width
        stages.append(nn.Sequential(*stage))
    return Classifier(conv(3, widths[0][0]), stages, channels)


def mobile(
    settings: Sequence[Tuple[int, int, int]] = (
        (24, 3, 1),
        (40, 4, 2),
        (64, 3, 1),
    ),
    ratio: int = 6,
    last: int = 192,
    scale: float = 1.0,
) -> nn.Module:
    """Inverted residuals, as MobileNetV2: (width, blocks, stride) each.

    The stem halves the image: depthwise layers on large maps are slow on a
    CPU out of proportion to their MACs.
    """
    settings = [(round(w * scale), b, s) for w, b, s in settings]
    last = round(last * scale)
    stages, channels = [], settings[0][0]
    for width, blocks, stride in settings:
        stage = []
        for number in range(blocks):
            step = 1 if number else stride
            stage.append(InvertedResidual(channels, width, step, ratio))
            channels = width
        stages.append(nn.Sequential(*stage))
    stages.append(conv(channels, last, 1))
    stem = conv(3, settings[0][0], stride=2)
    return Classifier(stem, stages, last)


class Transformer(nn.Module):
    """mmpretrain's vision transformer on small images, averaging tokens.

    Args:
        dims (int): Embedding. Defaults to 96.
        layers (int): Transformer layers. Defaults to 6.
        heads (int): Attention heads. Defaults to 6.
        patch (int): Pixels of a patch's side. Defaults to 4.
        size (int): Pixels of an image's side. Defaults to 16.
        scale (float): Of the embedding; whole widths of heads have to come
            out. Defaults to 1.
    """

    def __init__(
        self,
        dims: int = 96,
        layers: int = 6,
        heads: int = 6,
        patch: int = 4,
        size: int = 16,
        scale: float = 1.0,
    ) -> None:
        from mmpretrain.models import VisionTransformer

        super().__init__()
        dims = round(dims * scale)
        self.backbone = VisionTransformer(
            arch=dict(
                embed_dims=dims,
                num_layers=layers,
                num_heads=heads,
                feedforward_channels=2 * dims,
            ),
            img_size=size,
            patch_size=patch,
            with_cls_token=False,
            out_type='avg_featmap',
        )
        self.head = nn.Linear(dims, 10)
        nn.init.trunc_normal_(self.backbone.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to scores [B, 10]."""
        return self.head(self.backbone(x)[0])
