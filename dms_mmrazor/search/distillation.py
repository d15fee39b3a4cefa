"""A frozen teacher that a searched or a finetuned model learns from.

The loss is Kullback and Leibler's divergence of softened distributions,
``T² Σ p_t (log p_t − log p_s)``, and, where layers are named for it, the
mean squared difference of hidden states. What is compared are outputs of
modules, by name: a classifier's last layer, a language model's head, the
predictors of a detector.
"""

from contextlib import ExitStack, contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import evaluating
from dms_mmrazor.graph.model_kind import vocabulary_of
from dms_mmrazor.graph.running import removing
from dms_mmrazor.search.distill_settings import (
    DistillSettings,
    matching,
    usual_head,
)
from dms_mmrazor.search.distillation_losses import (
    classes_last,
    distillation_loss,
    squared_difference,
)
from dms_mmrazor.supernet.mask_state import MaskState

Outputs = Dict[str, List[Tensor]]
"""Name of a module → its outputs, one for each call."""


class Distiller(nn.Module):
    """What a student's outputs are compared with, and how.

    Attributes:
        settings (DistillSettings): As read.
        logits (list[str]): Modules that give logits.
        hidden (list[str]): Modules that give hidden states.
        waits (Tensor): bool: whether the teacher has yet to get the weights
            of the start.

    Args:
        model (nn.Module): The student; the teacher has modules of the same
            names.
        settings (DistillSettings): How.
        owner (str): Where they are written, for messages. Defaults to
            'distill'.
        itself (bool): Whether the student without masks is the teacher: its
            weights are frozen, but statistics of batch norms go on adapting
            to the masks, so that those of the start are kept. Defaults to
            False.

    Raises:
        DMSError: If a name matches no module, or nothing says which module
            gives the logits.
    """

    waits: Tensor

    def __init__(
        self,
        model: nn.Module,
        settings: DistillSettings,
        owner: str = 'distill',
        itself: bool = False,
    ) -> None:
        super().__init__()
        self.settings, self.owner = settings, owner
        names = [name for name, _ in model.named_modules() if name]
        wanted = settings.logits
        if not wanted and settings.weight > 0:
            wanted = usual_head(names, owner)
        self.logits = matching(names, wanted, f'{owner}.logits')
        self.hidden = matching(names, settings.hidden, f'{owner}.hidden')
        self.register_buffer('waits', torch.tensor(True))
        self._started = False
        kept = list(_statistics(model)) if itself else []
        for index, statistic in enumerate(kept):
            self.register_buffer(f'statistic_{index}', statistic.clone())

    def check_teacher(self, teacher: nn.Module, student: nn.Module) -> None:
        """Refuse another model that cannot be compared.

        Args:
            teacher (nn.Module): With its own weights.
            student (nn.Module): The student.

        Raises:
            DMSError: If it lacks one of the modules, or knows another
                number of tokens.
        """
        known = dict(teacher.named_modules())
        for key in ('logits', 'hidden'):
            for name in getattr(self, key):
                if name not in known:
                    raise DMSError(
                        f'`{self.owner}.{key}` names {name!r}, which the '
                        'teacher does not have: name modules of both.'
                    )
        own, other = vocabulary_of(student), vocabulary_of(teacher)
        if self.logits and own != other:
            raise DMSError(
                f'`{self.owner}`: the teacher knows {other} tokens, the '
                f'student {own}: take a teacher with the same tokenizer.'
            )

    def start(self, student: nn.Module, teacher: Optional[nn.Module]) -> None:
        """Give the teacher what the student has at the start, once.

        Args:
            student (nn.Module): With the weights of the start.
            teacher (nn.Module, optional): A copy of it; None if the student
                is its own teacher.
        """
        # The buffer is asked once: that waits for a GPU.
        if self._started:
            return
        self._started = True
        if not self.waits:
            return
        if teacher is not None:
            teacher.load_state_dict(student.state_dict())
        for index, statistic in enumerate(_statistics(student)):
            if teacher is None:
                getattr(self, f'statistic_{index}').copy_(statistic)
        self.waits.fill_(False)

    @contextmanager
    def _as_at_start(self, student: nn.Module) -> Iterator[None]:
        """Let a student that teaches itself have its first statistics."""
        now = [statistic.data for statistic in _statistics(student)]
        for index, statistic in enumerate(_statistics(student)):
            statistic.data = getattr(self, f'statistic_{index}')
        try:
            yield
        finally:
            for statistic, data in zip(_statistics(student), now):
                statistic.data = data

    def fingerprint(
        self, student: nn.Module, teacher: Optional[nn.Module]
    ) -> Tensor:
        """Some of the teacher's weights: float [n], on the CPU.

        Args:
            student (nn.Module): The student.
            teacher (nn.Module, optional): None: the student as it was at
                the start.
        """
        if teacher is not None:
            return _samples([*teacher.parameters(), *_statistics(teacher)])
        number = len(list(_statistics(student)))
        kept = [getattr(self, f'statistic_{i}') for i in range(number)]
        return _samples([*student.parameters(), *kept])

    def check_fingerprint(
        self, found: Tensor, student: nn.Module, teacher: Optional[nn.Module]
    ) -> None:
        """Refuse to go on with another teacher.

        Args:
            found (Tensor): As :meth:`fingerprint` gave it.
            student (nn.Module): The student.
            teacher (nn.Module, optional): As there.

        Raises:
            DMSError: If the teacher is not the one that it is of.
        """
        if not torch.equal(found, self.fingerprint(student, teacher)):
            raise DMSError(
                'Search: the state is of a search with another teacher. '
                'Without `distill.teacher` that are the weights that the '
                'model has when the search is made: make it with the weights '
                'of the start, then load the state of the model and that of '
                'the search.'
            )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[Outputs]:
        """Keep what the compared modules give inside.

        Args:
            model (nn.Module): Student or teacher.

        Yields:
            dict[str, list[Tensor]]: Filled as it runs.
        """
        found: Outputs = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                tensor = output[0] if isinstance(output, tuple) else output
                found.setdefault(name, []).append(tensor)

            return hook

        hooks = [
            model.get_submodule(name).register_forward_hook(keep(name))
            for name in dict.fromkeys([*self.logits, *self.hidden])
        ]
        with removing(hooks):
            yield found

    @torch.no_grad()
    def teach(
        self,
        teacher: Optional[nn.Module],
        student: nn.Module,
        masks: Optional[MaskState],
        run: Callable[[nn.Module], Any],
    ) -> Outputs:
        """Outputs of the teacher, in evaluation mode, without a graph.

        Args:
            teacher (nn.Module, optional): None: the student as it was at
                the start, without masks.
            student (nn.Module): The student.
            masks (MaskState, optional): Of a student that is its own
                teacher.
            run (Callable): Calls a model on the batch.
        """
        with ExitStack() as stack:
            if teacher is None:
                teacher = student
                stack.enter_context(masks.showing(None))
                stack.enter_context(self._as_at_start(student))
            stack.enter_context(evaluating(teacher))
            outputs = stack.enter_context(self.watching(teacher))
            run(teacher)
        return outputs

    def loss(
        self,
        student: Outputs,
        teacher: Outputs,
        mask: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """Weighted losses: ``loss_distill`` and, if wanted, ``loss_hidden``.

        Args:
            student (dict[str, list[Tensor]]): Outputs of the student.
            teacher (dict[str, list[Tensor]]): Outputs of the teacher on the
                same batch.
            mask (Tensor, optional): See :func:`distillation_loss`; hidden
                states have it where they have its shape. Defaults to None.

        Raises:
            DMSError: If one of the modules did not run in one of them, or
                gave another shape there.
        """
        settings = self.settings
        losses: Dict[str, Tensor] = {}
        if self.logits and settings.weight > 0:
            pairs = self._pairs('logits', student, teacher)
            each = [
                distillation_loss(
                    *classes_last(a, b), settings.temperature, mask
                )
                for a, b in pairs
            ]
            losses['loss_distill'] = settings.weight * sum(each) / len(each)
        if self.hidden and settings.hidden_weight > 0:
            pairs = self._pairs('hidden', student, teacher)
            each = [squared_difference(a, b, mask) for a, b in pairs]
            losses['loss_hidden'] = (
                settings.hidden_weight * sum(each) / len(each)
            )
        return losses

    def _pairs(
        self, key: str, student: Outputs, teacher: Outputs
    ) -> List[Tuple[Tensor, Tensor]]:
        """Outputs of the same calls of the same modules."""
        pairs = []
        for name in getattr(self, key):
            a, b = student.get(name, []), teacher.get(name, [])
            if not a or len(a) != len(b):
                raise DMSError(
                    f'distillation compares outputs of {name!r}, which ran '
                    f'{len(a)} times in the student and {len(b)} times in '
                    'the teacher.'
                )
            pairs += list(zip(a, b))
            for one, other in zip(a, b):
                if one.shape != other.shape:
                    raise DMSError(
                        f'`{self.owner}.{key}`: {name!r} gives '
                        f'{list(one.shape)} in the student and '
                        f'{list(other.shape)} in the teacher: name modules '
                        'with equal shapes, or take another teacher.'
                    )
        return pairs

    def weigh_task(self, losses: Mapping[str, Any]) -> Dict[str, Any]:
        """The task's own losses by their weight; other values as they are."""
        weight = self.settings.task_weight
        return {
            key: _scaled(value, weight) if 'loss' in key else value
            for key, value in losses.items()
        }


def positions_that_count(
    model: nn.Module, inputs: Any, data_samples: Any
) -> Optional[Tensor]:
    """Which positions of the logits a model's own loss is of.

    Args:
        model (nn.Module): One that has a method of this name, such as
            :class:`CausalLM`, says it; of others all of them count.
        inputs (Any): What the model is called with.
        data_samples (Any): What it is called with.

    Returns:
        Tensor, optional: bool, such as [B, L]; None for all.
    """
    find = getattr(model, 'positions_that_count', None)
    return None if find is None else find(inputs, data_samples)


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    """Running statistics of the norms of a model."""
    for module in model.modules():
        for key in ('running_mean', 'running_var'):
            statistic = getattr(module, key, None)
            if isinstance(statistic, Tensor):
                yield statistic


def _samples(tensors: Sequence[Tensor], number: int = 16) -> Tensor:
    """Elements of each tensor, evenly spaced: float [n], on the CPU."""
    parts = [torch.zeros(0)]
    for tensor in tensors:
        flat = tensor.detach().flatten()
        step = max(flat.numel() // number, 1)
        parts.append(flat[::step][:number].float().cpu())
    return torch.cat(parts)


def _scaled(value: Any, weight: float) -> Any:
    if isinstance(value, (list, tuple)):
        return [_scaled(part, weight) for part in value]
    return value * weight
