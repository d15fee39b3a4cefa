"""Whether a masked supernet and its subnets agree in training, too.

What is traced is a pass in evaluation. In training a model may do more: mix
channels, read a feature by a vector of its own, give more outputs.
"""

from contextlib import nullcontext
from typing import Any, ContextManager, List, Optional

from mmengine.model import BaseModel
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import DemoInput
from dms_mmrazor.graph.outputs import (
    SAME,
    difference,
    named_tensors,
    same_random_numbers,
)
from dms_mmrazor.graph.running import ForwardError, in_double, naming_modules
from dms_mmrazor.graph.training_run import (
    TrainingRun,
    training,
    training_runs,
)
from dms_mmrazor.supernet.difference import TOLERANCE, as_double

_INF = float('inf')


class TrainingProof:
    """Compares passes in training.

    Numbers are compared where a model gives the same ones twice; random
    ones are the same for all, whatever their number. Of a model that says
    its losses itself (those of OpenMMLab's libraries) that is only that it
    runs and gives as many: what is assigned to what may change with the
    last bit. Nothing is compared where the plain model does not run in
    training on what it is called with.

    Args:
        plain (nn.Module): A plain copy with the weights of the comparison.
        size (tuple | ExampleInputs): (B, C, H, W), or what it is called
            with.
    """

    def __init__(self, plain: nn.Module, size: DemoInput) -> None:
        self._run: Optional[TrainingRun] = None
        self._exact = False
        # What says its losses itself is run, but its numbers are not asked.
        passes = 1 if isinstance(plain, BaseModel) else 2
        for run in training_runs(plain, size):
            try:
                outputs = [_outputs(plain, run) for _ in range(passes)]
            except ForwardError:  # it wants other data, or labels
                continue
            self._run = run
            self._exact = passes > 1 and _same(outputs)
            break

    def difference(
        self, supernet: nn.Module, subnet: nn.Module, sure: float
    ) -> float:
        """Largest relative difference; inf if outputs have other shapes.

        Args:
            supernet (nn.Module): With hard masks.
            subnet (nn.Module): Cut as they are.
            sure (float): A larger one is not computed again.

        Raises:
            ForwardError: If one of them does not run.
            IncomparableError: If their outputs have other parts.
        """
        if self._run is None:
            return 0.0
        models = (supernet, subnet)
        outputs = [_outputs(m, self._run) for m in models]
        if not self._exact:
            return 0.0 if _shapes(outputs[0]) == _shapes(outputs[1]) else _INF
        found = difference(*outputs)
        if found <= TOLERANCE or found > sure:
            return found
        inputs = as_double(self._run.inputs)
        run = self._run._replace(inputs=inputs)
        for at_once in (False, True):
            try:
                outputs = [
                    _outputs(m, run, in_double(m, at_once)) for m in models
                ]
                return difference(*outputs)
            except ForwardError:  # a model may insist on single precision
                continue
        return found


def _outputs(
    model: nn.Module,
    run: TrainingRun,
    precision: Optional[ContextManager] = None,
) -> Any:
    """What a model gives in training, with the same random numbers.

    Always: two passes may also be equal by chance, as few paths are dropped.
    """
    with precision or nullcontext(), training(model), same_random_numbers():
        with naming_modules(model):
            return run.run(model, run.inputs)


def _same(outputs: List[Any]) -> bool:
    """Whether two passes give the same numbers."""
    try:
        return difference(*outputs) <= SAME
    except DMSError:  # none that could be compared
        return False


def _shapes(outputs: Any) -> List[Any]:
    """Names of all tensors of an output, and their shapes."""
    return [(n, tuple(t.shape)) for n, t in named_tensors(outputs).items()]
