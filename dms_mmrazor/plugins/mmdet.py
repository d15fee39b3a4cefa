"""What mmdet's detectors need besides images, and its own blocks.

The DETR family asks data samples for the sizes of the images that they were
padded from, to mask the padding. The demo input has none.

Which regions the second stage of a detector sees is decided by sorting
scores, which no trace can follow, and where two structures that compute the
same may differ by a rounding. For tracing, comparing and counting it sees
fixed regions, as many as the first stage hands out in a test. All stages of
a cascade see the same ones.
"""

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
from mmdet.models.backbones.swin import ShiftWindowMSA, WindowMSA
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import image_meta, middle_box
from dms_mmrazor.graph.model_kind import Forward, ModelKind, register_model
from dms_mmrazor.layers.block import (
    BlockKind,
    EqualPartsKind,
    register_block,
)
from dms_mmrazor.layers.by_type import qualified_name
from dms_mmrazor.layers.channel_holder import ChannelCount
from dms_mmrazor.layers.kind import ChannelHolder
from dms_mmrazor.layers.window_attention import (
    WindowsOfAnyDims,
    register_swin,
)

_DETECTORS = 'mmdet.models.detectors'
_HEADS = 'mmdet.models.roi_heads'
_ROI_HEAD = f'{_HEADS}.standard_roi_head.StandardRoIHead'
_CASCADE_HEAD = f'{_HEADS}.cascade_roi_head.CascadeRoIHead'
_HTC_HEAD = f'{_HEADS}.htc_roi_head.HybridTaskCascadeRoIHead'
_SPARSE_HEAD = f'{_HEADS}.sparse_roi_head.SparseRoIHead'

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
    kind = _kind_of_head(model.roi_head)
    if kind == _SPARSE_HEAD:
        return tuple(_sparse_tensors(model, features, regions))
    first: Tuple[Any, ...] = ()
    if model.with_rpn:
        first = tuple(model.rpn_head(features))
    if kind == _ROI_HEAD:
        return (*first, model.roi_head.forward(features, regions))
    stages = _cascade_tensors if kind == _CASCADE_HEAD else _htc_tensors
    return (*first, *stages(model.roi_head, features, _as_rois(regions)))


def _kind_of_head(roi_head: nn.Module) -> str:
    """Which of the known second stages it is; '' if it is another one.

    What derives from a cascade does other things than it.
    """
    name = qualified_name(type(roi_head))
    if name == _SPARSE_HEAD and roi_head.with_mask:
        return ''
    if name in (_CASCADE_HEAD, _HTC_HEAD, _SPARSE_HEAD):
        return name
    known = map(qualified_name, type(roi_head).__mro__)
    return _ROI_HEAD if _ROI_HEAD in known else ''


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


def _htc_tensors(
    roi_head: nn.Module, features: Any, rois: Tensor
) -> Iterator[Tensor]:
    """As of a cascade, with the masks' information flow and semantics."""
    semantic = None
    if roi_head.with_semantic:
        prediction, semantic = roi_head.semantic_head(features)
        yield prediction
    for stage in range(roi_head.num_stages):
        found = roi_head._bbox_forward(stage, features, rois, semantic)
        yield found['cls_score']
        yield found['bbox_pred']
        if roi_head.with_mask:
            few = rois[:_MASKS]
            found = roi_head._mask_forward(stage, features, few, semantic)
            yield found['mask_preds']


def _sparse_tensors(
    model: nn.Module, features: Any, regions: List[InstanceData]
) -> Iterator[Tensor]:
    """Outputs of every stage of Sparse R-CNN, whose queries go on."""
    roi_head, rois = model.roi_head, _as_rois(regions)
    queries = model.rpn_head.init_proposal_features.weight
    objects = queries.expand(len(regions), *queries.shape)
    for stage in range(roi_head.num_stages):
        extractor = roi_head.bbox_roi_extractor[stage]
        found = extractor(features[: extractor.num_inputs], rois)
        scores, boxes, objects, _ = roi_head.bbox_head[stage](found, objects)
        yield scores
        yield boxes


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
    kind = _kind_of_head(model.roi_head)
    if not kind:
        raise DMSError(
            f'`architecture.roi_head`: {type(model.roi_head).__name__} cannot '
            'be searched, only StandardRoIHead (Faster R-CNN, Mask R-CNN), '
            'CascadeRoIHead (Cascade R-CNN), HybridTaskCascadeRoIHead (HTC) '
            'and SparseRoIHead without masks (Sparse R-CNN): its stages '
            'refine what the one before has found. Search a detector of these '
            'with the same backbone, and let this one have the backbone of '
            'the found subnet.'
        )
    batch, _, height, width = input_size
    number = _number_of_regions(model, few)
    generator = torch.Generator().manual_seed(0)
    sizes, centers = torch.rand(2, number, 2, generator=generator).unbind()
    whole = torch.tensor([float(width), float(height)])
    sizes = _SMALLEST * (whole / _SMALLEST).clamp(min=1.0) ** sizes
    corners = centers * (whole - sizes).clamp(min=0.0)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    boxes = boxes.to(next(model.parameters()))
    return [InstanceData(bboxes=boxes) for _ in range(batch)]


def _number_of_regions(model: nn.Module, few: bool) -> int:
    """As many as in a test, or some."""
    if _kind_of_head(model.roi_head) == _SPARSE_HEAD:
        return model.rpn_head.num_proposals  # one for each query
    number = _REGIONS
    if model.with_rpn:
        number = (model.rpn_head.test_cfg or {}).get('max_per_img', _REGIONS)
    return min(number, _FEW) if few else number


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
        samples = [
            DetDataSample(metainfo=image_meta(shape)) for _ in range(shape[0])
        ]

        def tensors(
            model: nn.Module, forward: Callable[..., Any], images: Tensor
        ) -> Any:
            return forward(images, samples, mode='tensor')

        return tensors


def demo_samples(
    model: nn.Module, size: Tuple[int, ...]
) -> List[DetDataSample]:
    """An object with a mask in each of two images.

    Args:
        model (nn.Module): Any detector.
        size (tuple): (B, C, H, W).
    """
    return [_demo_sample(size) for _ in range(2)]


def _demo_sample(size: Tuple[int, ...]) -> DetDataSample:
    sample = DetDataSample(metainfo=image_meta(size))
    mask = torch.zeros(1, *size[2:], dtype=torch.uint8).numpy()
    mask[:, size[2] // 4 : -(size[2] // 4), size[3] // 4 :] = 1
    sample.gt_instances = InstanceData(
        bboxes=middle_box(size),
        labels=torch.zeros(1, dtype=torch.long),
        masks=BitmapMasks(mask, *size[2:]),
    )
    classes = torch.zeros(1, *size[2:], dtype=torch.long)
    sample.gt_sem_seg = PixelData(sem_seg=classes)
    return sample


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
class Bottle2neckKind(EqualPartsKind):
    """A block of Res2Net."""

    names = ('mmdet.models.backbones.res2net.Bottle2neck',)
    number = 'width'
    reader = 'convs.0'


class SlimWindowAttention(WindowsOfAnyDims, WindowMSA):
    """What ``WindowMSA`` becomes in an exported model."""


register_swin(
    WindowMSA,
    ShiftWindowMSA,
    'mmdet.models.backbones.swin.SwinTransformer',
    SlimWindowAttention,
)
