"""What mmdet's detectors need besides images, and its region extractor.

The DETR family asks data samples for the sizes of the images that they were
padded from, to mask the padding. The demo input has none.

Which regions the second stage of a detector sees is decided by sorting
scores, which no trace can follow, and where two structures that compute the
same may differ by a rounding. For tracing, comparing and counting it sees
fixed regions, as many as the first stage hands out in a test. All stages of
a cascade see the same ones.
"""

import sys
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo_samples import image_meta
from dms_mmrazor.graph.model_kind import Forward, ModelKind, register_model
from dms_mmrazor.layers.block import BlockKind, register_block
from dms_mmrazor.layers.by_type import qualified_name
from dms_mmrazor.layers.channel_holder import ChannelCount
from dms_mmrazor.layers.kind import ChannelHolder

_DETECTORS = 'mmdet.models.detectors'
_HEADS = 'mmdet.models.roi_heads'
_ROI_HEAD = f'{_HEADS}.standard_roi_head.StandardRoIHead'
_CASCADE_HEAD = f'{_HEADS}.cascade_roi_head.CascadeRoIHead'

_REGIONS = 1000
"""Proposals per image where the test config does not tell."""

_FEW = 64
"""Proposals per image where it is enough that there are some."""

_MASKS = 100
"""Regions of which a mask is made, as mmdet's own forward does."""

_SMALLEST = 8.0
"""Side of the smallest regions, in pixels."""


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
    return qualified_name(type(roi_head)) == _CASCADE_HEAD


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
    heads = map(qualified_name, type(model.roi_head).__mro__)
    known = _ROI_HEAD in heads or _is_cascade(model.roi_head)
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


@register_model
class TwoStageKind(ModelKind):
    """Detectors with a second stage that looks at regions."""

    names = (f'{_DETECTORS}.two_stage.TwoStageDetector',)

    def extras(
        self, model: nn.Module, shape: Sequence[int], few: bool = False
    ) -> Optional[Forward]:
        """With fixed regions."""
        regions = demo_regions(model, shape, few)

        def tensors(
            model: nn.Module, forward: Callable[..., Any], images: Tensor
        ) -> Any:
            return two_stage_tensors(model, images, regions)

        return tensors

    def why_not_onnx(self, model: nn.Module) -> str:
        """The choice of regions."""
        return (
            'the regions that the second stage of a detector sees are chosen '
            "by code; export it with mmdeploy, which has ONNX's operators for "
            'that'
        )


@register_model
class SampleKind(ModelKind):
    """Detectors that ask data samples for the sizes of images."""

    names = (
        f'{_DETECTORS}.base_detr.DetectionTransformer',
        f'{_DETECTORS}.maskformer.MaskFormer',
    )

    def extras(
        self, model: nn.Module, shape: Sequence[int], few: bool = False
    ) -> Optional[Forward]:
        """With a sample for each image, without objects, not padded."""
        structures = sys.modules['mmdet.structures']
        samples = [
            structures.DetDataSample(metainfo=image_meta(shape))
            for _ in range(shape[0])
        ]

        def tensors(
            model: nn.Module, forward: Callable[..., Any], images: Tensor
        ) -> Any:
            return forward(images, samples, mode='tensor')

        return tensors


@register_block
class RegionExtractorKind(BlockKind):
    """What cuts regions out of feature maps: it keeps their width."""

    names = (
        f'{_HEADS}.roi_extractors.single_level_roi_extractor.'
        'SingleRoIExtractor',
    )
    opaque: ClassVar[bool] = True

    def holders(self, block: nn.Module) -> Dict[str, ChannelHolder]:
        """That number."""
        return {'': ChannelCount(block, 'out_channels')}


@register_block
class Bottle2neckKind(BlockKind):
    """A block of Res2Net, which splits into parts by a number."""

    names = ('mmdet.models.backbones.res2net.Bottle2neck',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The channels of a part; all parts keep the same ones."""
        block.width = block.convs[0].in_channels
