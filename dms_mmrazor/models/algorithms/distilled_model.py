"""A found model that is finetuned with a teacher."""

from typing import Any, Dict, List, Optional, Union

from mmengine.model import BaseModel
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.distillation import (
    Distiller,
    DistillSettings,
    positions_that_count,
)


@MODELS.register_module()
class DistilledModel(BaseModel):
    """Trains a plain model, such as a found one, beside a frozen teacher.

    The teacher is not part of the checkpoints: its config says where its
    weights are.

    Args:
        architecture (dict | BaseModel): What is trained, for instance a
            :func:`DMSSubModel`.
        teacher (dict | BaseModel): The teacher, with modules of the same
            names and, by ``init_cfg`` or ``folder``, its weights.
        distill (dict, optional): ``temperature``, ``weight`` and so on, see
            :class:`DistillSettings`. Defaults to None, its defaults.
        data_preprocessor (dict | nn.Module, optional): Defaults to None,
            the architecture's own.
        init_cfg (dict, optional): As in mmengine. Defaults to None.

    Raises:
        DMSError: If a setting is unknown, or the teacher cannot be
            compared.
    """

    def __init__(
        self,
        architecture: Union[Dict[str, Any], BaseModel],
        teacher: Union[Dict[str, Any], BaseModel],
        distill: Optional[Dict[str, Any]] = None,
        data_preprocessor: Union[Dict[str, Any], nn.Module, None] = None,
        init_cfg: Optional[Dict[str, Any]] = None,
    ) -> None:
        if isinstance(architecture, dict):
            if data_preprocessor is not None:
                # The architecture may extend it, as in a search.
                architecture = {
                    'data_preprocessor': data_preprocessor,
                    **architecture,
                }
                data_preprocessor = None
            architecture = MODELS.build(architecture)
        own = architecture.data_preprocessor
        super().__init__(
            own if data_preprocessor is None else data_preprocessor, init_cfg
        )
        self.architecture = architecture
        if isinstance(teacher, dict):
            teacher = MODELS.build(teacher)
        if not isinstance(teacher, nn.Module):
            raise DMSError(
                "`model.teacher` must be a model's config, such as "
                "dict(type='mmrazor.CausalLM', folder=…), got "
                f'{teacher!r}.'
            )
        settings = DistillSettings.read(distill or {}, 'model.distill')
        if settings.teacher is not None:
            raise DMSError(
                '`model.distill.teacher` belongs beside it: `model.teacher`.'
            )
        self.distiller = Distiller(architecture, settings, 'model.distill')
        self.distiller.check_teacher(teacher, architecture)
        # In a tuple, so that it is no part of the state.
        self._teacher = (teacher.requires_grad_(False),)

    @property
    def teacher(self) -> BaseModel:
        """The frozen model."""
        return self._teacher[0]

    def init_weights(self) -> None:
        """Initialize both models."""
        if self.init_cfg:
            super().init_weights()
        else:
            self.architecture.init_weights()
        self.teacher.init_weights()

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[List[Any]] = None,
        mode: str = 'tensor',
    ) -> Any:
        """As the architecture's; its losses and the teacher's in training."""
        if mode != 'loss':
            return self.architecture(inputs, data_samples, mode=mode)

        def run(model: nn.Module) -> None:
            model(inputs, data_samples, mode='tensor')

        device = next(self.architecture.parameters()).device
        targets = self.distiller.teach(
            self.teacher.to(device), self.architecture, None, run
        )
        with self.distiller.watching(self.architecture) as outputs:
            losses = self.architecture(inputs, data_samples, mode='loss')
        losses = self.distiller.weigh_task(losses)
        where = positions_that_count(self.architecture, inputs, data_samples)
        losses.update(self.distiller.loss(outputs, targets, where))
        return losses
