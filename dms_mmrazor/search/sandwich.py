"""Training a supernet so that its subnets share good weights.

The sandwich rule (BigNAS, Yu et al. 2020): each step trains the largest
subnet with the task loss, and the smallest and some random ones with the
outputs of the largest as their targets (in-place distillation). AutoFormer
trains one random subnet with the task loss.
"""

import random
from typing import Callable, Iterator, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.supernet.choice_space import Choices, ChoiceSpace

SANDWICH = ('max', 'min', 'random', 'random')
"""Subnets of a step by the sandwich rule."""

KINDS = ('max', 'min', 'random')


class Sandwich:
    """The losses of one step after another.

    Gradients of the subnets add up: go backward through each loss before
    the next one is asked for, and step the optimizer once for all::

        sandwich = Sandwich(mutator)
        for step, (images, labels) in enumerate(loader):
            for loss in sandwich.losses(
                step,
                lambda: model(images),
                lambda logits: F.cross_entropy(logits, labels),
            ):
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    Args:
        mutator (DMSMutator): Of the supernet.
        samples (Sequence[str]): 'max', 'min' and 'random', the subnets of a
            step in this order. What follows 'max' learns from its outputs,
            anything else from the task. Defaults to the sandwich rule with
            two random ones; AutoFormer's is ('random',).
        seed (int): Of the random subnets. Defaults to 0.

    Raises:
        DMSError: If there are no samples, or unknown ones.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        samples: Sequence[str] = SANDWICH,
        seed: int = 0,
    ) -> None:
        if isinstance(samples, str) or not samples or set(samples) - {*KINDS}:
            raise DMSError(
                f'`samples` must be a list of {KINDS}, got {samples!r}.'
            )
        self.space = ChoiceSpace(mutator)
        self.samples = tuple(samples)
        self.seed = seed

    def choices(self, step: int) -> Iterator[Choices]:
        """The subnets of a step; equal for equal seeds."""
        draw = random.Random(f'{self.seed}/{step}')
        for kind in self.samples:
            if kind == 'random':
                yield self.space.sample(draw)
            else:
                yield {
                    'max': self.space.largest,
                    'min': self.space.smallest,
                }[kind]

    def losses(
        self,
        step: int,
        forward: Callable[[], Tensor],
        task_loss: Callable[[Tensor], Tensor],
    ) -> Iterator[Tensor]:
        """The loss of each subnet; the supernet shows it meanwhile.

        Args:
            step (int): Number of the step, from 0.
            forward (Callable): Runs the supernet on the step's batch and
                returns logits [B, classes].
            task_loss (Callable): Loss of these logits.

        Yields:
            Tensor: 0-dim, to go backward through at once.
        """
        teacher: Optional[Tensor] = None
        for kind, choices in zip(self.samples, self.choices(step)):
            self.space.show(choices)
            logits = forward()
            if kind == 'max':
                teacher = logits.detach()
            if kind == 'max' or teacher is None:
                yield task_loss(logits)
            else:
                yield distillation(logits, teacher)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of a student from its teacher.

    Args:
        logits (Tensor): Of the student, [B, classes].
        teacher (Tensor): Logits of the teacher, without a gradient.

    Returns:
        Tensor: 0-dim.
    """
    target = torch.log_softmax(teacher.float(), -1)
    found = torch.log_softmax(logits.float(), -1)
    return F.kl_div(found, target, reduction='batchmean', log_target=True)
