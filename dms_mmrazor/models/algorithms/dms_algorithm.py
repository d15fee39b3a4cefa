"""The search as a model that any runner can train."""

from contextlib import nullcontext
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch
from mmengine.model import BaseModel
from mmrazor.models.algorithms.base import BaseAlgorithm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dms_mmrazor.compat.recomputation import recomputes, without_reentrance
from dms_mmrazor.errors import DMSError, check_flag
from dms_mmrazor.layers import apply_sync_norms, revert_sync_norms
from dms_mmrazor.layers.references import model_copy
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.registry import MODELS, check_architecture
from dms_mmrazor.search.distillation import (
    Distiller,
    DistillSettings,
    Outputs,
    positions_that_count,
)
from dms_mmrazor.search.structure_search import StructureSearch
from dms_mmrazor.type_names import type_name


@MODELS.register_module()
class DMSAlgorithm(BaseAlgorithm):
    """Differentiable Model Scaling (DMS) of an architecture.

    In training the layers see soft masks and the losses contain the
    resource constraint (Eq. 5); in evaluation they see the hard masks of
    what an export now would keep. Targets, phases and the export are the
    business of :class:`ResourceHook`.

    Args:
        architecture (dict | BaseModel): The supernet, a plain model. Needed.
        mutator (dict | DMSMutator): What to search. Defaults to
            dict(type='DMSMutator').
        structure_only (bool): Train only the pruning ratios; weights get
            no gradient (pipeline without retraining). Defaults to False.
        data_preprocessor (dict | nn.Module, optional): Defaults to None,
            the architecture's own.
        init_cfg (dict, optional): As in mmengine. Defaults to None.
        module_inplace (bool): Leave in-place activations as they are, which
            saves memory. Defaults to True.
        structure_step (dict, optional): How pruning ratios move: ``rule``
            ('price', 'adam', or 'plain' as in the paper), ``lr`` and
            ``average``, see :class:`StructureStep`, and ``signal``, see
            :class:`StructureSearch`. Defaults to None, their defaults.
        distill (dict, optional): Let the supernet learn from a frozen
            teacher, too: ``teacher`` (a config; None, the default: the
            supernet's own start weights), ``temperature``, ``weight``,
            ``task_weight``, ``logits`` (names of the modules that give
            them), ``hidden`` and ``hidden_weight``, see
            :class:`DistillSettings`. With ``structure_only`` the teacher is
            the supernet without masks and takes no memory; otherwise it is
            a second copy of the weights. Defaults to None: no teacher.
    """

    def __init__(
        self,
        architecture: Union[BaseModel, Dict[str, Any], None] = None,
        mutator: Union[DMSMutator, Dict[str, Any], None] = None,
        structure_only: bool = False,
        data_preprocessor: Union[Dict[str, Any], nn.Module, None] = None,
        init_cfg: Optional[Dict[str, Any]] = None,
        module_inplace: bool = True,
        structure_step: Optional[Dict[str, Any]] = None,
        distill: Optional[Dict[str, Any]] = None,
    ) -> None:
        check_architecture(architecture)
        check_flag('model.structure_only', structure_only)
        check_flag('model.module_inplace', module_inplace)
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
        self.mutator = _build_mutator(mutator)
        self.distiller, teacher = _build_teacher(
            self.architecture, distill, structure_only
        )
        sync_norms = revert_sync_norms(self.architecture)
        self.mutator.prepare_from_supernet(self.architecture)
        apply_sync_norms(self.architecture, sync_norms)
        self.mutator.restore_masks(self.architecture)
        self.structure = StructureSearch(
            self.mutator, structure_step, self.architecture
        )
        self.structure_only = structure_only
        if structure_only:
            self.architecture.requires_grad_(False)
            # A loss scaler and a distributed wrapper refuse a model without
            # any parameter that has a gradient; this one's is always 0.
            self.anchor = nn.Parameter(torch.zeros(()))
        self.teacher = teacher
        self._recomputes: Optional[bool] = None
        _keep_from_wrapper(self)

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
        if self.teacher is not None and not self.distiller.waits:
            self.teacher.init_weights()

    def train_step(self, *args: Any, **kwargs: Any) -> Dict[str, Tensor]:
        """As mmengine's, for a search that somebody leads.

        Raises:
            DMSError: If nobody has set constraints: a training to its end
                would find nothing.
        """
        if not self.structure.kinds:
            raise DMSError(
                'nothing leads this search, `custom_hooks` has no '
                "ResourceHook: add `dict(type='mmrazor.ResourceHook', "
                'target=0.5)` to it (in a loop of your own, call '
                '`set_constraints`).'
            )
        return super().train_step(*args, **kwargs)

    def set_constraints(self, weights: Mapping[str, float]) -> None:
        """Choose the constrained resources: kind → weight λ_r of its loss."""
        self.structure.set_constraints(weights)

    def set_targets(self, targets: Mapping[str, float]) -> None:
        """Set the target r_t of each constraint for the next steps."""
        self.structure.set_targets(targets)

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
        targets = self._teach(inputs, data_samples)
        self.structure.begin()
        if self._recomputes is None:
            self._recomputes = recomputes(self.architecture)
        with without_reentrance() if self._recomputes else nullcontext():
            losses = self._task_losses(inputs, data_samples, targets)
        losses.update(self.structure.losses())
        if self.structure_only:
            losses['loss_anchor'] = 0 * self.anchor
        return losses

    def _task_losses(
        self,
        inputs: Tensor,
        data_samples: Optional[List[Any]],
        targets: Outputs,
    ) -> Dict[str, Any]:
        """The architecture's losses, and those of the distillation."""
        if self.distiller is None:
            return self.architecture(inputs, data_samples, mode='loss')
        with self.distiller.watching(self.architecture) as outputs:
            losses = self.architecture(inputs, data_samples, mode='loss')
        losses = self.distiller.weigh_task(losses)
        where = positions_that_count(self.architecture, inputs, data_samples)
        losses.update(self.distiller.loss(outputs, targets, where))
        return losses

    def _teach(
        self, inputs: Tensor, data_samples: Optional[List[Any]]
    ) -> Outputs:
        """What the teacher gives for a batch; nothing without one."""
        if self.distiller is None:
            return {}

        def run(model: nn.Module) -> None:
            model(inputs, data_samples, mode='tensor')

        # A resumed search does not take the weights of that moment.
        self.distiller.start(self.architecture, self.teacher)
        return self.distiller.teach(
            self.teacher, self.architecture, self.mutator.masks, run
        )

    def finish_step(self, grad_scale: Optional[Tensor] = None) -> None:
        """Move importances and structure; call after each optimizer step.

        Args:
            grad_scale (Tensor, optional): Loss scale under AMP. Defaults to
                None.
        """
        self.structure.finish(grad_scale)


def _build_mutator(
    mutator: Union[DMSMutator, Dict[str, Any], None],
) -> DMSMutator:
    """The mutator of a config; without a type it is ours.

    Raises:
        DMSError: If it is of another type.
    """
    if isinstance(mutator, dict):
        kind = type_name(mutator) or 'DMSMutator'
        if kind != 'DMSMutator':
            raise DMSError(
                f'`model.mutator.type` must be DMSMutator, got {kind!r}: '
                'other mutators do not know the masks of this search.'
            )
        # Whatever scope the config has: mutators are mmrazor's.
        mutator = MODELS.build(
            {'_scope_': 'mmrazor', 'type': 'DMSMutator', **mutator}
        )
    mutator = DMSMutator() if mutator is None else mutator
    if not isinstance(mutator, DMSMutator):
        raise DMSError(
            '`model.mutator` must be a dict of settings, or a DMSMutator, '
            f'got {mutator!r}.'
        )
    return mutator


def _build_teacher(
    architecture: nn.Module,
    settings: Optional[Dict[str, Any]],
    structure_only: bool,
) -> Tuple[Optional[Distiller], Optional[nn.Module]]:
    """What compares with a teacher, and the teacher if it is another model.

    Args:
        architecture (nn.Module): The plain architecture.
        settings (dict, optional): ``model.distill``.
        structure_only (bool): Whether the supernet's weights stay.
    """
    if settings is None:
        return None, None
    read = DistillSettings.read(settings, 'model.distill')
    teacher = read.teacher
    itself = teacher is None and structure_only
    distiller = Distiller(architecture, read, 'model.distill', itself)
    # Another teacher brings its own weights.
    distiller.waits.fill_(teacher is None)
    if isinstance(teacher, dict):
        teacher = MODELS.build(teacher)
    elif teacher is None and not structure_only:
        teacher = model_copy(architecture)
    if teacher is not None:
        distiller.check_teacher(teacher, architecture)
        teacher.requires_grad_(False)
    return distiller, teacher


def _keep_from_wrapper(algorithm: DMSAlgorithm) -> None:
    """Let a distributed wrapper leave the state of the search alone.

    It is equal on all ranks by itself, except the gradient of the masks,
    which has to differ until :meth:`DMSAlgorithm.finish_step`; and pruning
    ratios have no gradient in a backward pass.
    """
    tensors = [*algorithm.named_buffers(), *algorithm.named_parameters()]
    names = [
        name
        for name, _ in tensors
        if not name.startswith(('architecture.', 'anchor'))
    ]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        algorithm, names
    )
