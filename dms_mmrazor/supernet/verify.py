"""Prove on random structures that masking and cutting are the same."""

from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.errors import (
    DMSError,
    is_out_of_memory,
    raise_device_error,
)
from dms_mmrazor.graph.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
    small_shape,
)
from dms_mmrazor.graph.outputs import (
    IncomparableError,
    difference,
    first_difference,
    is_random,
    other_values,
    same_random_numbers,
)
from dms_mmrazor.graph.running import (
    ForwardError,
    live_tensors,
)
from dms_mmrazor.subnet import Structure, pruned_copy
from dms_mmrazor.supernet.difference import TOLERANCE, compare
from dms_mmrazor.supernet.failing_units import (
    Selects,
    as_patterns,
    find_failing_units,
)
from dms_mmrazor.supernet.training_proof import TrainingProof

TRIALS = 2
"""Random structures that are compared."""

WIDTH_TRIALS = 3
"""With one of equal widths, where code may ask for them."""

Choose = Callable[[Sequence[str], int], Structure]

_SURE = 1e-2
"""Difference that rounding does not explain."""

_INF = float('inf')


class CutError(Exception):
    """A structure cannot be cut out of a model."""


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
        self._drawing = self._draws()
        self._training = TrainingProof(plain, proof_size or input_size)
        self._blind: Dict[int, bool] = {}
        # Modules of the last subnet → their names before blocks were removed.
        self._names: Dict[nn.Module, str] = {}

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

    def _draws(self) -> bool:
        """Whether the model draws random numbers.

        Raises:
            DMSError: If there is nothing that a proof could compare.
        """
        for image in self._images:
            try:
                return is_random(self._plain, image)
            except IncomparableError as error:
                raise DMSError(
                    f'{type(self._plain).__name__}: {error} A search could '
                    'not be proven. Let `forward` give tensors, or search '
                    'unproven by `mutator.verify=False`.'
                ) from None
            except DMSError:
                raise
            except Exception as error:  # perhaps it is too small an image
                if image is self._images[-1] or is_out_of_memory(error):
                    raise
        return False

    def difference(self, structure: Structure, sure: float = _INF) -> float:
        """Largest relative difference of the outputs, see :func:`compare`.

        In evaluation; where that is none, in training, too.

        Args:
            structure (Structure): That of the supernet's masks.
            sure (float): A larger one is not looked at again. Defaults to
                inf.

        Raises:
            CutError: If the subnet cannot be made.
            ForwardError: If it does not run.
            IncomparableError: If its outputs have other parts.
        """
        subnet = self._subnet(structure)
        found = self._evaluated(subnet, sure)
        if found > TOLERANCE:
            return found
        trained = self._training.difference(self._supernet, subnet, sure)
        return max(found, trained)

    def _evaluated(self, subnet: nn.Module, sure: float) -> float:
        """The difference in evaluation."""
        *smaller, image = self._images
        for small in smaller:
            try:
                found = self._compare(subnet, small, sure)
            except ForwardError:  # perhaps it does on the demo input
                continue
            if found <= TOLERANCE:
                return found
        return self._compare(subnet, image, sure)

    def _compare(self, subnet: nn.Module, image: Tensor, sure: float) -> float:
        found = compare(self._supernet, subnet, image, self._drawing, sure)
        if found <= TOLERANCE and self._is_blind(image):
            return _INF if self._place(subnet, image) else found
        return found

    def _is_blind(self, image: Any) -> bool:
        """Whether outputs tell nothing: another input gives the same ones.

        As those of a sigmoid far from zero. Then features are compared.
        """
        key = id(image)  # of one of the two, which stay
        if key not in self._blind:
            self._blind[key] = self._gives_the_same(image)
        return self._blind[key]

    def _gives_the_same(self, image: Any) -> bool:
        """Whether the plain model's outputs are those of another input."""
        drawn = same_random_numbers if self._drawing else nullcontext
        outputs = []
        try:
            with evaluating(self._plain):
                for values in (image, other_values(image)):
                    with drawn():
                        outputs.append(forward_tensors(self._plain, values))
        except Exception as error:  # it may not take the other one
            raise_device_error(error)
            return False
        return difference(*outputs) <= TOLERANCE

    def _place(self, subnet: nn.Module, image: Any) -> str:
        """The module in which features differ first; '' if none do."""
        drawn = same_random_numbers() if self._drawing else nullcontext()
        with evaluating(self._supernet), drawn:
            return first_difference(
                self._supernet, subnet.eval(), image, self._names
            )

    def error(self, structure: Structure, sure: float = _INF) -> float:
        """The difference; inf if there is no subnet, or it does not run."""
        try:
            return self.difference(structure, sure)
        except (CutError, ForwardError, IncomparableError):
            return _INF

    def fails(self, structure: Structure) -> bool:
        """Whether supernet and subnet differ, or the subnet does not run.

        To find out who is guilty once it is proven that they differ: what
        no rounding explains is not computed again.
        """
        return not self.error(structure, _SURE) <= TOLERANCE

    def describe(self, structure: Structure) -> str:
        """In which module a failure shows first."""
        where = ''
        try:
            subnet = self._subnet(structure)
            found = self._evaluated(subnet, _INF)
            if found <= TOLERANCE:
                where = ' in training'
                found = self._training.difference(self._supernet, subnet, _INF)
        except CutError as error:
            return f'cannot be cut out: {error}'
        except ForwardError as error:
            return f'does not run{where}, it fails {error}'
        except IncomparableError as error:
            return (
                f'cannot be compared with the masked supernet{where}: {error}'
            )
        text = (
            f'computes something else{where} than the masked supernet '
            f'(relative difference {found:.1e}'
        )
        place = self._place(subnet, self._images[-1])
        return f'{text}, first seen in `{place}`)' if place else f'{text})'

    def _subnet(self, structure: Structure) -> nn.Module:
        def remember(whole: nn.Module) -> None:
            modules = whole.named_modules()
            self._names = {module: name for name, module in modules}

        try:
            return pruned_copy(self._plain, structure, remember)
        except Exception as error:  # whatever cutting a strange layer raises
            raise_device_error(error)
            raise CutError(str(error)) from error

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
    choose: Choose,
    selects: Selects,
    trials: int = TRIALS,
) -> float:
    """Compare random masked structures with their exported subnets.

    Args:
        comparison (Comparison): Supernet and plain copy, alive.
        names (Sequence[str]): All units and stages.
        choose (Callable): Mask some of them at random, keep the others at
            full size, and return the structure; with the number of a trial.
        selects (Callable): Units and stages that a name or pattern of
            `mutator.exclude` stands for.
        trials (int): Structures. Defaults to 2.

    Returns:
        float: The largest relative difference.

    Raises:
        DMSError: If they differ, or the subnet does not run: something in
            the model ties channels in a way that the tracer cannot see. It
            names the module, and the units to exclude.
    """

    def failing(some: Sequence[str]) -> List[int]:
        """The first trial in which some units fail."""
        found = (t for t in range(trials) if comparison.fails(choose(some, t)))
        return list(islice(found, 1))

    errors = [comparison.error(choose(names, t)) for t in range(trials)]
    if max(errors) <= TOLERANCE:
        return max(errors)
    if comparison.fails(choose([], 0)):
        raise DMSError(
            'with all channels and blocks kept, the supernet already '
            f'{comparison.describe(choose([], 0))}: this model cannot be '
            'searched. Please report it.'
        )
    guilty = find_failing_units(names, lambda some: bool(failing(some)))
    # Some fail only together with innocent ones.
    shown = guilty if failing(guilty) else names
    trial = (failing(shown) or [0])[0]
    raise DMSError(
        f'a random subnet {comparison.describe(choose(shown, trial))}: the '
        'tracer misunderstands how this model ties channels. Search the rest '
        f'by `mutator.exclude={as_patterns(guilty, names, selects)}`, and '
        'please report the model.'
    )


def randomize(importance: Tensor, seed: int) -> None:
    """Random importances, so that random channels are kept."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(importance.shape, generator=generator)
    importance.copy_(values)


def randomize_units(
    topk: FlatTopk, names: Sequence[str], trial: int = 0
) -> None:
    """Random importances of each unit that depend on its name alone.

    What is proven of some units holds when others are excluded.

    Args:
        topk (FlatTopk): Operators of the units.
        names (Sequence[str]): Their names.
        trial (int): Others for each. Defaults to 0.
    """
    counts = [operator.num_elements for operator in topk.operators]
    for name, part in zip(names, topk.importance.split(counts)):
        randomize(part, crc32(f'{name} {trial}'.encode()))
