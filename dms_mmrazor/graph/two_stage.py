"""The tensors of a two-stage detector, without choosing proposals.

Which regions the second stage sees is decided by sorting scores, which no
trace can follow, and where two structures that compute the same may differ
by a rounding. For tracing, comparing and counting the second stage sees fixed
regions, as many as the first stage hands out in a test. All stages of a
cascade see the same ones.
"""

from typing import Any, Iterator, List, Sequence, Tuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.known_types import (
    CASCADE_HEAD,
    ROI_HEAD,
    TWO_STAGE,
    is_kind,
    qualified_name,
)

_REGIONS = 1000
"""Proposals per image where the test config does not tell."""

_FEW = 64
"""Proposals per image where it is enough that there are some."""

_MASKS = 100
"""Regions of which a mask is made, as mmdet's own forward does."""

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
    if _is_cascade(model.roi_head):
        rois = _as_rois(regions)
        return (*first, *_cascade_tensors(model.roi_head, features, rois))
    return (*first, model.roi_head.forward(features, regions))


def _is_cascade(roi_head: nn.Module) -> bool:
    """Whether it is Cascade R-CNN's; those derived from it do other things."""
    return qualified_name(type(roi_head)) == CASCADE_HEAD


def _as_rois(regions: List[InstanceData]) -> Tensor:
    """Regions [n, 5] as extractors read them: the image, then the box."""
    return torch.cat(
        [
            torch.cat([boxes.new_full((len(boxes), 1), index), boxes], dim=1)
            for index, boxes in enumerate(r.bboxes for r in regions)
        ]
    )


def _cascade_tensors(
    roi_head: nn.Module, features: Any, rois: Tensor
) -> Iterator[Tensor]:
    """Outputs of every stage, without refining regions by the one before."""
    for stage in range(roi_head.num_stages):
        found = roi_head._bbox_forward(stage, features, rois)
        yield found['cls_score']
        yield found['bbox_pred']
        if roi_head.with_mask:
            found = roi_head._mask_forward(stage, features, rois[:_MASKS])
            yield found['mask_preds']


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
    known = is_kind(model.roi_head, ROI_HEAD) or _is_cascade(model.roi_head)
    if not known:
        raise DMSError(
            f'`architecture.roi_head`: {type(model.roi_head).__name__} cannot '
            'be searched, only StandardRoIHead (Faster R-CNN, Mask R-CNN) '
            'and CascadeRoIHead (Cascade R-CNN): its stages refine what the '
            'one before has found. Search the backbone in one of these, and '
            "give the found file to this detector's backbone."
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
