"""The depth of a stage."""

import random
from typing import Any, Tuple, Type, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ResidualStage
from dms_mmrazor.layers import replace_with_dynamic
from dms_mmrazor.layers.dms_op import DepthHandle, call_modules_of
from dms_mmrazor.models.mutables import DMSMutableDepth, TopkOperator
from dms_mmrazor.registry import MODELS


class DepthScaling:
    """Forward hook that multiplies a residual branch by its depth mask.

    For branches that do not end in an affine layer (squeeze-excitation,
    say). A class, not a closure: copies of a model then point at their own
    mutable.
    """

    def __init__(self, handle: DepthHandle) -> None:
        self.handle = handle

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Scale the output, or the first, as torch calls a forward hook."""
        mask = self.handle.mask
        if mask is None:
            return output
        if isinstance(output, tuple):
            return (self(module, args, output[0]), *output[1:])
        return output * mask.to(output.dtype)


class DepthBypassing(DepthScaling):
    """Forward hook of a norm beside the branches of a block.

    Its output goes over to its input as the mask goes to 0, so that the
    block becomes the identity: ``x + m (norm(x) - x)``.
    """

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Mix input and output, as torch calls a forward hook."""
        mask = self.handle.mask
        if mask is None:
            return output
        x = args[0].to(output.dtype)
        return torch.lerp(x, output, mask.to(output.dtype))


@MODELS.register_module()
class DMSDepthUnit(BaseModule):
    """Residual blocks of one stage that one differentiable top-k chooses.

    Args:
        stage (ResidualStage): The removable blocks.
        min_blocks (int): Removable blocks that are always kept. 0 lets a
            stage shrink to the blocks that cannot be removed. Defaults to
            1, the paper's limit a <= 1 - 1/N.
        max_blocks (int, optional): Most blocks that are kept. Defaults to
            all.

    Raises:
        DMSError: If the limits are out of range.
    """

    def __init__(
        self,
        stage: ResidualStage,
        min_blocks: int = 1,
        max_blocks: Union[int, None] = None,
    ) -> None:
        super().__init__()
        total = len(stage.blocks)
        self.stage = stage
        self.min_blocks = min_blocks
        self.max_blocks = total if max_blocks is None else max_blocks
        if not 0 <= min_blocks <= self.max_blocks <= total:
            raise DMSError(
                f'stage {stage.name} has {total} removable blocks, so 0 <= '
                f'min_blocks <= max_blocks <= {total} must hold; got '
                f'{min_blocks} and {self.max_blocks}.'
            )
        if min_blocks == 0 and stage.fixed == 0:
            raise DMSError(
                f'min_blocks=0 would leave stage {stage.name} without any '
                'block; use 1.'
            )
        self.mutable_depth = DMSMutableDepth(total)

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    @property
    def num_blocks(self) -> int:
        """Number of removable blocks N."""
        return len(self.stage.blocks)

    @property
    def block_names(self) -> Tuple[str, ...]:
        """Module names of the removable blocks."""
        return tuple(block.name for block in self.stage.blocks)

    def bind(self, operator: TopkOperator) -> None:
        """Let ``operator`` choose the blocks."""
        self.mutable_depth.operator = operator

    def prepare_for_pruning(self, model: nn.Module) -> None:
        """Make the end of each residual branch carry its depth mask."""
        for index, block in enumerate(self.stage.blocks):
            for carrier, folds in block.carriers:
                if folds:
                    layer = replace_with_dynamic(model, carrier)
                    layer.attach_depth(self.mutable_depth, index)
                else:
                    self._hook(model, carrier, index, DepthScaling)
            for norm in block.bypassed:
                self._hook(model, norm, index, DepthBypassing)

    def _hook(
        self,
        model: nn.Module,
        name: str,
        index: int,
        kind: Type[DepthScaling],
    ) -> None:
        """Let a module's output follow the mask of a block."""
        handle = DepthHandle(self.mutable_depth, index)
        model.get_submodule(name).register_forward_hook(kind(handle))
        call_modules_of(model, name)

    def restore_masks(self, model: nn.Module) -> None:
        """Carry the masks again where a layer was replaced since.

        mmengine exchanges BatchNorm and SyncBatchNorm after a model is
        built; the new layer's output is multiplied.
        """
        for index, block in enumerate(self.stage.blocks):
            for carrier, _ in block.carriers:
                if not _carries_mask(model.get_submodule(carrier)):
                    self._hook(model, carrier, index, DepthScaling)
            for norm in block.bypassed:
                if not _carries_mask(model.get_submodule(norm)):
                    self._hook(model, norm, index, DepthBypassing)

    @property
    def current_choice(self) -> int:
        """Number of kept blocks."""
        return self.mutable_depth.current_choice

    @current_choice.setter
    def current_choice(self, choice: Union[int, float]) -> None:
        self.mutable_depth.current_choice = choice

    def sample_choice(self) -> int:
        """A random number of blocks within the limits."""
        return random.randint(self.min_blocks, self.max_blocks)


def _carries_mask(module: nn.Module) -> bool:
    """Whether a layer's output is multiplied by a depth mask."""
    hooks = module._forward_hooks.values()
    return getattr(module, 'depth', None) is not None or any(
        isinstance(hook, DepthScaling) for hook in hooks
    )
