"""The search as a model that any runner can train."""

from contextlib import nullcontext
from typing import Any, Dict, List, Mapping, Optional, Union

import torch
from mmengine.model import BaseModel
from mmrazor.models.algorithms.base import BaseAlgorithm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dms_mmrazor.compat.recomputation import recomputes, without_reentrance
from dms_mmrazor.core import resource_loss
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.ops import apply_sync_norms, revert_sync_norms
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSAlgorithm(BaseAlgorithm):
    """Differentiable Model Scaling (DMS) of an architecture.

    In training the layers see soft masks and the losses contain the
    resource constraint (Eq. 5); in evaluation they see the hard masks of
    what an export now would keep. Targets, phases and the export are the
    business of :class:`ResourceHook`.

    Args:
        architecture (dict | BaseModel): The supernet, a plain model.
        mutator (dict | DMSMutator): What to search. Defaults to
            dict(type='DMSMutator').
        structure_only (bool): Train only the pruning ratios; weights get
            no gradient (pipeline without retraining). Defaults to False.
        data_preprocessor (dict | nn.Module, optional): Defaults to None,
            the architecture's own.
        init_cfg (dict, optional): As in mmengine. Defaults to None.
        module_inplace (bool): Leave in-place activations as they are, which
            saves memory. Defaults to True.
    """

    def __init__(
        self,
        architecture: Union[BaseModel, Dict[str, Any]],
        mutator: Union[DMSMutator, Dict[str, Any], None] = None,
        structure_only: bool = False,
        data_preprocessor: Union[Dict[str, Any], nn.Module, None] = None,
        init_cfg: Optional[Dict[str, Any]] = None,
        module_inplace: bool = True,
    ) -> None:
        if isinstance(architecture, dict) and data_preprocessor is not None:
            # The architecture may extend it (batch augmentations, say).
            architecture = {
                'data_preprocessor': data_preprocessor,
                **architecture,
            }
            data_preprocessor = None
        super().__init__(
            architecture, data_preprocessor, init_cfg, module_inplace
        )
        mutator = dict(type='DMSMutator') if mutator is None else mutator
        if isinstance(mutator, dict):
            # Whatever scope the config has: mutators are mmrazor's.
            mutator = MODELS.build({'_scope_': 'mmrazor', **mutator})
        self.mutator: DMSMutator = mutator
        sync_norms = revert_sync_norms(self.architecture)
        self.mutator.prepare_from_supernet(self.architecture)
        apply_sync_norms(self.architecture, sync_norms)
        self.mutator.restore_masks(self.architecture)
        self.structure_only = structure_only
        if structure_only:
            self.architecture.requires_grad_(False)
        self._kinds: List[str] = []
        self._weights: List[float] = []
        self._landing_lr: Optional[float] = None
        self._recomputes: Optional[bool] = None
        self.register_buffer('targets', torch.zeros(0), persistent=False)
        _keep_from_broadcast(self)

    def __getattr__(self, name: str) -> Any:
        """Parts of the architecture, for hooks that reach into a model.

        Detectors' hooks set ``model.bbox_head.use_bbox_aux`` and the like.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get('_modules') or {}
            if name.startswith('__') or 'architecture' not in modules:
                raise
            return getattr(modules['architecture'], name)

    def init_weights(self) -> None:
        """Initialize the architecture as if it were not searched."""
        if self.init_cfg:
            super().init_weights()
        else:
            self.architecture.init_weights()

    def structural_parameters(self) -> List[nn.Parameter]:
        """The pruning ratios of all units, in one parameter."""
        return [self.mutator.topk.pruning_ratio]

    def set_constraints(
        self,
        weights: Mapping[str, float],
        landing_lr: Optional[float] = None,
    ) -> None:
        """Choose the constrained resources.

        Args:
            weights (Mapping[str, float]): Resource kind → weight λ_r of its
                loss.
            landing_lr (float, optional): Learning rate of the structure, to
                land softly: see :meth:`resource_losses`. Defaults to None,
                Eq. 7 as it is.
        """
        self._landing_lr = landing_lr
        self._kinds = list(weights)
        self._weights = list(weights.values())
        device = self.mutator.topk.importance.device
        self.targets = torch.full(
            (len(weights),), float('inf'), dtype=torch.float64, device=device
        )

    def set_targets(self, targets: Mapping[str, float]) -> None:
        """Set the target r_t of each constraint for the next steps."""
        for index, kind in enumerate(self._kinds):
            self.targets[index].fill_(targets[kind])

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[List[Any]] = None,
        mode: str = 'tensor',
    ) -> Any:
        """As the architecture's, through the masks of this moment."""
        if not (self.training and mode == 'loss'):
            self.mutator.masks.use_hard_masks()
            return self.architecture(inputs, data_samples, mode=mode)
        self.mutator.masks.use_soft_masks()
        if self._recomputes is None:
            self._recomputes = recomputes(self.architecture)
        with without_reentrance() if self._recomputes else nullcontext():
            losses = self.architecture(inputs, data_samples, mode=mode)
        losses.update(self.resource_losses())
        return losses

    def resource_losses(self) -> Dict[str, Tensor]:
        """λ_r · L_r of every constraint (Eq. 7), and what it compares.

        The gradient of L_r does not vanish at the target, so that a step
        from just above it goes below by up to lr · λ_r · |∂ log r / ∂a|².
        With a soft landing, λ_r of that step is lowered to what reaches the
        target.

        Returns:
            dict[str, Tensor]: ``loss_{kind}``, and ``{kind}_ratio`` and
            ``{kind}_target`` relative to the supernet, for the log.
        """
        losses = {}
        blocks = self.mutator.masks.table.blocks
        for index, kind in enumerate(self._kinds):
            current = self.mutator.table.soft(kind, blocks)
            target = self.targets[index]
            loss = self._weights[index] * resource_loss(current, target)
            losses[f'loss_{kind}'] = self._landing(index, loss).float()
            whole = self.mutator.table.full[kind]
            losses[f'{kind}_ratio'] = (current.detach() / whole).float()
            losses[f'{kind}_target'] = (target / whole).clamp(max=1).float()
        return losses

    def _landing(self, index: int, loss: Tensor) -> Tensor:
        """A resource loss whose step ends at its target, not below."""
        if self._landing_lr is None:
            return loss
        (ratio,) = self.structural_parameters()
        (grad,) = torch.autograd.grad(loss, ratio, retain_graph=True)
        # Both are λ_r times those of log r.
        step = self._landing_lr * grad.square().sum() / self._weights[index]
        distance = loss.detach() / self._weights[index]
        tiny = torch.finfo(step.dtype).tiny
        return loss * (distance / step.clamp(min=tiny)).clamp(max=1.0)

    def finish_step(self, grad_scale: Optional[Tensor] = None) -> None:
        """Update importances and limits; call after each optimizer step.

        Args:
            grad_scale (Tensor, optional): Loss scale under AMP. Defaults to
                None.
        """
        scores = self.mutator.static_scores()
        self.mutator.masks.finish_step(grad_scale, scores)


def _keep_from_broadcast(algorithm: DMSAlgorithm) -> None:
    """Let a distributed wrapper leave the buffers of the search alone.

    They are equal on all ranks by themselves, except the gradient of the
    masks, which has to differ until :meth:`DMSAlgorithm.finish_step`.
    """
    names = [
        name
        for name, _ in algorithm.named_buffers()
        if not name.startswith('architecture.')
    ]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        algorithm, names
    )
