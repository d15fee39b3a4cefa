"""mmpose's models, whose forward asks for data samples."""

from typing import Any, Callable, Optional, Sequence

from torch import Tensor, nn

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
