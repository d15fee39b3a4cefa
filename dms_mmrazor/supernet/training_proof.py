"""Whether a masked supernet and its subnets agree in training, too.

What is traced is a pass in evaluation. In training a model may do more: mix
channels, read a feature by a vector of its own, give more outputs.
"""

from contextlib import nullcontext
from typing import Any, ContextManager, List, Optional

import torch
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
        self._exact = self._drawing = False
        for run in training_runs(plain, size):
            try:
                with torch.random.fork_rng():
                    self._look(plain, run)
            except ForwardError:  # it wants other data, or labels
                continue
            self._run = run
            break

    def _look(self, plain: nn.Module, run: TrainingRun) -> None:
        """Find out whether it gives the same twice."""
        if isinstance(plain, BaseModel):
            _outputs(plain, run)
            return
        # Most do without the same random numbers, which take time.
        for self._drawing in (False, True):
            passes = [_outputs(plain, run, self._drawing) for _ in range(2)]
            self._exact = _same(passes)
            if self._exact:
                return

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
        outputs = [_outputs(m, self._run, self._drawing) for m in models]
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
                    _outputs(m, run, self._drawing, in_double(m, at_once))
                    for m in models
                ]
                return difference(*outputs)
            except ForwardError:  # a model may insist on single precision
                continue
        return found


def _outputs(
    model: nn.Module,
    run: TrainingRun,
    drawing: bool = False,
    precision: Optional[ContextManager] = None,
) -> Any:
    """What a model gives in training, perhaps with equal random numbers."""
    drawn = same_random_numbers() if drawing else nullcontext()
    with precision or nullcontext(), training(model), drawn:
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
