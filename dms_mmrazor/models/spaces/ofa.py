"""The MobileNetV3 space of once-for-all (OFA) as a plain backbone.

Subnets are nested: of a stage the first blocks, of a block the first middle
channels, of its squeeze-excitation a quarter of these. Kernel sizes and the
resolution are not searched.
"""

from typing import Any, Dict, List, Sequence, Tuple, Union

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList, Sequential
from mmpretrain.models.utils import InvertedResidual, make_divisible
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS

WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
ACTS = ('ReLU', 'ReLU', 'HSwish', 'HSwish', 'HSwish')
SQUEEZED = (False, True, False, True, True)


@MODELS.register_module()
class OFAMobileNetV3(BaseModule):
    """The largest network of OFA's MobileNetV3 space, up to the last conv.

    With the mutator of ``configs/_base_/spaces/ofa_mobilenetv3.py`` its
    subnets are those of OFA ("Once-for-All", Cai et al. 2019; DMS paper,
    Tables 3 and 13). The defaults are OFA's at width 1.

    Args:
        widths (Sequence[int]): Outputs of the stages. Defaults to (24, 40,
            80, 112, 160).
        strides (Sequence[int]): Of the stages. Defaults to (2, 2, 2, 1, 2).
        acts (Sequence[str]): Activations of the stages.
        squeezed (Sequence[bool]): Stages with squeeze-excitation.
        depth (int): Blocks of a stage. Defaults to 4.
        expansion (int): Middle channels relative to the block's input.
            Defaults to 6.
        kernel_size (int | Sequence[int]): Of the depthwise convolutions, by
            stage. Defaults to 7.
        stem_channels (int): Defaults to 16.
        stem_stride (int): 1 for small images. Defaults to 2.
        out_channels (int): Of the last convolution. Defaults to 960.
        width_mult (float): Multiplies all widths. Defaults to 1.
        norm_cfg (dict): Defaults to dict(type='BN').
        init_cfg (dict | list, optional): Defaults to None, as MobileNetV3.

    Raises:
        DMSError: If the stages' settings have different lengths.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        strides: Sequence[int] = STRIDES,
        acts: Sequence[str] = ACTS,
        squeezed: Sequence[bool] = SQUEEZED,
        depth: int = 4,
        expansion: int = 6,
        kernel_size: Union[int, Sequence[int]] = 7,
        stem_channels: int = 16,
        stem_stride: int = 2,
        out_channels: int = 960,
        width_mult: float = 1.0,
        norm_cfg: Dict[str, Any] = dict(type='BN'),  # noqa: B006
        init_cfg: Any = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(
                    type='Kaiming', layer='Conv2d', nonlinearity='leaky_relu'
                ),
                dict(type='Constant', val=1, layer='BatchNorm2d'),
            ]
        super().__init__(init_cfg)
        if isinstance(kernel_size, int):
            kernel_size = [kernel_size] * len(widths)
        rows = _stage_rows(
            widths,
            strides=strides,
            acts=acts,
            squeezed=squeezed,
            kernel_size=kernel_size,
        )

        def scaled(width: int) -> int:
            return make_divisible(width * width_mult, 8)

        channels = scaled(stem_channels)
        norm_cfg = dict(norm_cfg)
        outer = dict(norm_cfg=norm_cfg, act_cfg=dict(type='HSwish'))
        self.conv1 = ConvModule(
            3, channels, 3, stride=stem_stride, padding=1, **outer
        )
        self.first = InvertedResidual(
            channels, channels, channels, norm_cfg=norm_cfg
        )
        self.stages = ModuleList()
        for width, *settings in rows:
            stage: List[BaseModule] = []
            for index in range(depth):
                sizes = channels, scaled(width), expansion
                stage.append(_block(*sizes, index, settings, norm_cfg))
                channels = scaled(width)
            self.stages.append(Sequential(*stage))
        self.conv2 = ConvModule(channels, scaled(out_channels), 1, **outer)

    def forward(self, x: Tensor) -> Tuple[Tensor]:
        """Images [B, 3, H, W] to one feature map."""
        x = self.first(self.conv1(x))
        for stage in self.stages:
            x = stage(x)
        return (self.conv2(x),)


def _stage_rows(
    widths: Sequence[int], **columns: Sequence[Any]
) -> List[Tuple[Any, ...]]:
    """Width and settings of each stage.

    Raises:
        DMSError: If a setting is not of as many stages.
    """
    for key, column in columns.items():
        if len(column) != len(widths):
            raise DMSError(
                f'OFAMobileNetV3: `{key}` has {len(column)} entries for '
                f'{len(widths)} stages of `widths`.'
            )
    return list(zip(widths, *columns.values()))


def _block(
    channels: int,
    out: int,
    expansion: int,
    index: int,
    settings: Sequence[Any],
    norm_cfg: Dict[str, Any],
) -> InvertedResidual:
    """An inverted residual block, the first of its stage with the stride."""
    stride, act, squeezed, kernel_size = settings
    middle = make_divisible(channels * expansion, 8)
    squeeze = dict(
        channels=middle,
        squeeze_channels=make_divisible(middle // 4, 8),
        act_cfg=(dict(type='ReLU'), dict(type='HSigmoid')),
    )
    return InvertedResidual(
        channels,
        out,
        middle,
        kernel_size=kernel_size,
        stride=1 if index else stride,
        se_cfg=squeeze if squeezed else None,
        norm_cfg=norm_cfg,
        act_cfg=dict(type=act),
    )
