"""Prove on a random structure that masking and cutting are the same."""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Sequence

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators.blame import as_patterns, find_guilty
from dms_mmrazor.models.ops import is_attention
from dms_mmrazor.models.subnet import Structure, prune
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
    small_shape,
)
from dms_mmrazor.models.tracing.light_copy import cut_copy
from dms_mmrazor.models.tracing.running import (
    ForwardError,
    first_difference,
    live_tensors,
    naming_modules,
)

TOLERANCE = 1e-4


def flatten_tensors(outputs: Any) -> List[Tensor]:
    """All tensors of nested outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = outputs.values()
    if hasattr(outputs, '__iter__') and not isinstance(outputs, str):
        return [t for part in outputs for t in flatten_tensors(part)]
    return []


def max_difference(
    masked: nn.Module, plain: nn.Module, image: Tensor
) -> float:
    """Largest difference of two models' outputs, relative to their scale.

    Args:
        masked (nn.Module): A supernet with hard masks.
        plain (nn.Module): Its exported subnet.
        image (Tensor): Input [B, C, H, W].

    Returns:
        float: max |a - b| / max(max |b|, 1e-6) over all outputs; inf if
        their shapes differ. Of models in half precision, whose rounding
        would hide differences, in single precision.
    """
    if image.element_size() < 4:
        image = image.float()
    with evaluating(masked), evaluating(plain), _single(masked, plain):
        pairs = list(
            zip(
                flatten_tensors(forward_tensors(masked, image)),
                flatten_tensors(forward_tensors(plain, image)),
            )
        )
    return max((_difference(a, b) for a, b in pairs), default=0.0)


@contextmanager
def _single(*models: nn.Module) -> Iterator[None]:
    """Values in half precision become single ones; they come back."""
    halves = {
        tensor: tensor.data
        for model in models
        for tensor in [*model.parameters(), *model.buffers()]
        if tensor.is_floating_point() and tensor.element_size() < 4
    }
    for tensor, values in halves.items():
        tensor.data = values.float()
    try:
        yield
    finally:
        for tensor, values in halves.items():
            tensor.data = values


def _difference(a: Tensor, b: Tensor) -> float:
    """Of one output; inf if it is not comparable."""
    if a.shape != b.shape:
        return float('inf')
    if not b.numel():
        return 0.0
    difference = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)
    return difference if difference == difference else float('inf')


class Comparison:
    """A masked supernet beside subnets that are cut from its plain copy.

    Args:
        supernet (nn.Module): With hard masks.
        plain (nn.Module): A plain copy; its weights change.
        input_size (tuple): (B, C, H, W).
        proof_size (tuple, optional): That of a smaller input which is
            enough where supernet and subnet agree. Defaults to None.
    """

    def __init__(
        self,
        supernet: nn.Module,
        plain: nn.Module,
        input_size: Any,
        proof_size: Any = None,
    ) -> None:
        enliven(plain, small_shape(plain, input_size))
        self._supernet = supernet
        self._plain = plain
        sizes = dict.fromkeys([proof_size or input_size, input_size])
        self._images = [demo_tensor(plain, size) for size in sizes]

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Give the supernet the lively weights of the copy for a while.

        The tensors themselves, not their values: that takes no memory.
        """
        before = live_tensors(self._supernet)
        self._use(live_tensors(self._plain))
        try:
            yield
        finally:
            self._use(before)

    def difference(self, structure: Structure) -> float:
        """Largest relative difference of the outputs.

        What differs more than rounding explains in single precision is
        computed again in double precision: deep networks with statistics of
        other widths magnify rounding.

        Args:
            structure (Structure): That of the supernet's masks.

        Raises:
            ForwardError: If the subnet does not run.
        """
        subnet = self._subnet(structure)
        *smaller, image = self._images
        for small in smaller:
            try:
                found = self._difference(subnet, small)
            except ForwardError:  # perhaps it does on the demo input
                continue
            if found <= TOLERANCE:
                return found
        return self._difference(subnet, image)

    def _difference(self, subnet: nn.Module, image: Tensor) -> float:
        """For one input."""
        with naming_modules(subnet):
            found = max_difference(self._supernet, subnet, image)
        if found <= TOLERANCE:
            return found
        try:
            return max_difference(
                self._supernet.double(), subnet.double(), image.double()
            )
        except RuntimeError:  # a model may insist on single precision
            return found
        finally:
            self._supernet.to(image.dtype)
            subnet.to(image.dtype)

    def error(self, structure: Structure) -> float:
        """The difference; inf if the subnet does not run."""
        try:
            return self.difference(structure)
        except ForwardError:
            return float('inf')

    def fails(self, structure: Structure) -> bool:
        """Whether supernet and subnet differ, or the subnet does not run."""
        return not self.error(structure) <= TOLERANCE

    def describe(self, structure: Structure) -> str:
        """In which module a failure shows first."""
        try:
            found = self.difference(structure)
        except ForwardError as error:
            return f'does not run, it fails {error}'
        text = (
            'computes something else than the masked supernet (relative '
            f'difference {found:.1e}'
        )
        with evaluating(self._supernet):
            subnet = self._subnet(structure).eval()
            place = first_difference(self._supernet, subnet, self._images[-1])
        return f'{text}, first seen in `{place}`)' if place else f'{text})'

    def _subnet(self, structure: Structure) -> nn.Module:
        modules = self._plain.modules()
        # Their queries are scaled in place.
        attentions = [module for module in modules if is_attention(module)]
        return prune(cut_copy(self._plain, attentions), structure)

    def _use(self, tensors: Dict[str, Tensor]) -> None:
        """Let the supernet's parameters and buffers be these tensors."""
        own = [
            *self._supernet.named_parameters(),
            *self._supernet.named_buffers(),
        ]
        for name, tensor in own:
            if name in tensors:
                tensor.data = tensors[name]


def verify_structures(
    comparison: Comparison,
    names: Sequence[str],
    choose: Callable[[Sequence[str]], Structure],
) -> float:
    """Compare a random masked structure with its exported subnet.

    Args:
        comparison (Comparison): Supernet and plain copy, alive.
        names (Sequence[str]): All units and stages.
        choose (Callable): Mask some of them at random, keep the others at
            full size, and return the structure.

    Returns:
        float: The largest relative difference.

    Raises:
        DMSError: If they differ, or the subnet does not run: something in
            the model ties channels in a way that the tracer cannot see. It
            names the module, and the units to exclude.
    """
    found = comparison.error(choose(names))
    if found <= TOLERANCE:
        return found
    guilty: List[str] = []
    left = list(names)
    while left and comparison.fails(choose(left)):
        guilty += find_guilty(
            left, lambda some: comparison.fails(choose(some))
        )
        left = [name for name in names if name not in guilty]
    description = comparison.describe(choose(guilty))
    raise DMSError(
        f'a random subnet {description}: the tracer misunderstands how this '
        'model ties channels. Search the rest by '
        f'`mutator.exclude={as_patterns(guilty, names)}`, and please report '
        'the model.'
    )


def randomize(importance: Tensor, seed: int) -> None:
    """Random importances, so that random channels are kept."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(importance.shape, generator=generator)
    importance.copy_(values)
