"""mmpose's models, whose forward asks for data samples."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample
from torch import Tensor, nn

from dms_mmrazor.graph.demo import image_meta
from dms_mmrazor.graph.model_kind import (
    Forward,
    ModelKind,
    register_model,
)


@register_model
class PoseEstimatorKind(ModelKind):
    """What finds keypoints; without samples it gives its head's outputs."""

    names = ('mmpose.models.pose_estimators.base.BasePoseEstimator',)

    def extras(
        self, model: nn.Module, shape: Sequence[int], few: bool = False
    ) -> Optional[Forward]:
        """Images alone, although its forward has no default for samples."""

        def tensors(
            model: nn.Module, forward: Callable[..., Any], images: Tensor
        ) -> Any:
            return forward(images, None, mode='tensor')

        return tensors


def demo_samples(
    model: nn.Module, size: Tuple[int, ...]
) -> List[PoseDataSample]:
    """Heatmaps of a person's keypoints in each of two images.

    Args:
        model (nn.Module): Any estimator.
        size (tuple): (B, C, H, W).
    """
    number = getattr(getattr(model, 'head', None), 'out_channels', 1)
    maps = torch.full((number, size[2] // 4, size[3] // 4), 0.5)
    samples = []
    for _ in range(2):
        sample = PoseDataSample(metainfo=image_meta(size))
        sample.gt_fields = PixelData(heatmaps=maps)
        sample.gt_instance_labels = InstanceData(
            keypoint_weights=torch.ones(1, number)
        )
        samples.append(sample)
    return samples
