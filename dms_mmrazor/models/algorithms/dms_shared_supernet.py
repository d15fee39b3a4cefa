"""The training of a supernet whose subnets share its weights."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms.dms_algorithm import DMSAlgorithm
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.sandwich import SANDWICH, Sandwich


@MODELS.register_module()
class DMSSharedSupernet(DMSAlgorithm):
    """Trains a supernet by the sandwich rule with in-place distillation.

    mmrazor's ``BigNAS`` does the same for supernets of its own mutables and
    takes their mutator alone. Searches start from the checkpoint by
    ``init_cfg=dict(type='Pretrained', checkpoint=…, prefix='architecture.')``
    of the architecture. Validation sees the largest subnet. Works in one
    process.

    Args:
        architecture (dict | BaseModel): The supernet, a plain model.
        mutator (dict | DMSMutator): The space of its subnets.
        samples (Sequence[str]): Subnets of a step, see :class:`Sandwich`.
            Defaults to ('max', 'min', 'random', 'random'); AutoFormer's is
            ('random',).
        logits (str): The layer whose outputs are distilled. Defaults to
            'head.fc'.
        seed (int): Of the random subnets. Defaults to 0.
        **kwargs (Any): Of :class:`DMSAlgorithm`.

    Raises:
        DMSError: If a setting cannot be meant.
    """

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        samples: Sequence[str] = SANDWICH,
        logits: str = 'head.fc',
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(architecture, mutator, **kwargs)
        self.sandwich = Sandwich(self.mutator, samples, seed)
        self.logits = logits
        if logits not in dict(self.architecture.named_modules()):
            raise DMSError(
                f'`model.logits` names {logits!r}, which is no layer of the '
                "architecture: name its classifier, such as 'head.fc'."
            )
        # A buffer, so that a resumed training draws what comes next.
        self.register_buffer('steps', torch.tensor(0))

    def train_step(
        self, data: Any, optim_wrapper: OptimWrapper
    ) -> Dict[str, Tensor]:
        """One step of the optimizer on the gradients of all subnets.

        Raises:
            DMSError: If gradients are to be accumulated over steps.
        """
        if getattr(optim_wrapper, '_accumulative_counts', 1) != 1:
            raise DMSError(
                '`optim_wrapper.accumulative_counts` is not supported by '
                'DMSSharedSupernet, which accumulates over its subnets.'
            )
        data = self.data_preprocessor(data, True)
        found: List[Dict[str, Tensor]] = []
        outputs: List[Tensor] = []
        layer = self.architecture.get_submodule(self.logits)
        handle = layer.register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )

        def forward() -> Tensor:
            with optim_wrapper.optim_context(self):
                found.append(self.architecture(**data, mode='loss'))
            return outputs[-1]

        def task_loss(logits: Tensor) -> Tensor:
            return self.parse_losses(found[-1])[0]

        logs: Dict[str, Tensor] = {}
        step = int(self.steps)
        try:
            losses = self.sandwich.losses(step, forward, task_loss)
            for index, loss in enumerate(losses):
                optim_wrapper.backward(loss)
                kind = self.sandwich.samples[index]
                logs[f'loss_{index}_{kind}'] = loss.detach()
        finally:
            handle.remove()
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        self.steps += 1
        return {'loss': sum(logs.values()), **logs}

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[List[Any]] = None,
        mode: str = 'tensor',
    ) -> Any:
        """As the largest subnet's.

        Raises:
            DMSError: In a training that does not call :meth:`train_step`,
                as that of a distributed wrapper.
        """
        if self.training and mode == 'loss':
            raise DMSError(
                'DMSSharedSupernet trains in one process: a distributed '
                'wrapper would train the largest subnet alone.'
            )
        self.sandwich.space.show(self.sandwich.space.largest)
        return self.architecture(inputs, data_samples, mode=mode)
