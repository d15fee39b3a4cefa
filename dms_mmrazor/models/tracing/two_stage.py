"""The tensors of a two-stage detector, without choosing proposals.

Which regions the second stage sees is decided by sorting scores, which no
trace can follow, and where two structures that compute the same may differ
by a rounding. For tracing, comparing and counting the second stage sees fixed
regions, as many as the first stage hands out in a test.
"""

from typing import Any, List, Sequence, Tuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.ops.known_types import ROI_HEAD, TWO_STAGE, is_kind

_REGIONS = 1000
"""Proposals per image where the test config does not tell."""

_FEW = 64
"""Proposals per image where it is enough that there are some."""

_SMALLEST = 8.0
"""Side of the smallest regions, in pixels."""


def is_two_stage(model: nn.Module) -> bool:
    """Whether a model is one of mmdet's two-stage detectors."""
    return is_kind(model, TWO_STAGE)


def two_stage_tensors(
    model: nn.Module, inputs: Tensor, regions: List[InstanceData]
) -> Tuple[Any, ...]:
    """Outputs of both stages before any post-processing.

    Args:
        model (nn.Module): A two-stage detector.
        inputs (Tensor): [B, C, H, W].
        regions (list[InstanceData]): What the second stage sees of each
            image.
    """
    features = model.extract_feat(inputs)
    first: Tuple[Any, ...] = ()
    if model.with_rpn:
        first = tuple(model.rpn_head(features))
    return (*first, model.roi_head.forward(features, regions))


def demo_regions(
    model: nn.Module, input_size: Sequence[int], few: bool = False
) -> List[InstanceData]:
    """Fixed regions for each image, from small ones to the whole image.

    Args:
        model (nn.Module): A two-stage detector.
        input_size (Sequence[int]): (B, C, H, W).
        few (bool): At most 64, not as many as in a test. Defaults to False.

    Raises:
        DMSError: If its second stage is of a kind that refines its regions.
    """
    if not is_kind(model.roi_head, ROI_HEAD):
        raise DMSError(
            f'`architecture.roi_head`: {type(model.roi_head).__name__} cannot '
            'be searched, only StandardRoIHead (Faster R-CNN, Mask R-CNN).'
        )
    batch, _, height, width = input_size
    number = _REGIONS
    if model.with_rpn:
        number = (model.rpn_head.test_cfg or {}).get('max_per_img', _REGIONS)
    number = min(number, _FEW) if few else number
    generator = torch.Generator().manual_seed(0)
    sizes, centers = torch.rand(2, number, 2, generator=generator).unbind()
    whole = torch.tensor([float(width), float(height)])
    sizes = _SMALLEST * (whole / _SMALLEST).clamp(min=1.0) ** sizes
    corners = centers * (whole - sizes).clamp(min=0.0)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    boxes = boxes.to(next(model.parameters()))
    return [InstanceData(bboxes=boxes) for _ in range(batch)]


def with_tensor_forward(
    model: nn.Module, input_size: Sequence[int]
) -> nn.Module:
    """Let ``forward`` of a two-stage detector be the function above.

    Args:
        model (nn.Module): A throw-away copy; its class changes. Other models
            stay as they are.
        input_size (Sequence[int]): (B, C, H, W) of what it will see.
    """
    if not is_two_stage(model):
        return model
    regions = demo_regions(model, input_size)

    def forward(
        self: nn.Module,
        inputs: Tensor,
        data_samples: Any = None,
        mode: str = 'tensor',
    ) -> Tuple[Any, ...]:
        return two_stage_tensors(self, inputs, regions)

    kind = type(model)
    model.__class__ = type(kind.__name__, (kind,), {'forward': forward})
    return model
