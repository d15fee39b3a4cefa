"""How a model is run in training, on data that were made up."""

import copy
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import torch
from mmengine.model import BaseModel
from torch import nn

from dms_mmrazor.graph.demo import (
    DemoInput,
    demo_samples,
    demo_tensor,
    for_norms,
    forward_tensors,
    keeping_modes,
)
from dms_mmrazor.graph.example_inputs import ExampleInputs

Run = Callable[[nn.Module, Any], Any]

_CONTAINERS = (list, dict, set)


class TrainingRun(NamedTuple):
    """One way to run a model in training.

    Attributes:
        run (Callable): Takes a model and :attr:`inputs`.
        inputs (Tensor | ExampleInputs): Two examples at least.
    """

    run: Run
    inputs: Any


def training_runs(model: nn.Module, size: DemoInput) -> Iterator[TrainingRun]:
    """Ways in which a model may run in training, the most telling first.

    Args:
        model (nn.Module): A model; one of OpenMMLab's libraries is given
            samples, and asked for its loss.
        size (tuple | ExampleInputs): (B, C, H, W) of the images, or what
            the model is called with.
    """
    inputs = demo_tensor(model, for_norms(size))
    several = isinstance(size, ExampleInputs)
    for samples in (None,) if several else demo_samples(model, size):

        def run(net: nn.Module, given: Any, samples: Any = samples) -> Any:
            if isinstance(net, BaseModel) and not several:
                return net(given, samples, mode='loss')
            return forward_tensors(net, given)

        yield TrainingRun(run, inputs)


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode without gradients; the model then is as before.

    What a pass changes comes back: buffers, each module's mode, and what
    modules remember in attributes of their own.

    Args:
        model (nn.Module): Any model.
    """
    buffers = {b: b.detach().clone() for b in model.buffers()}
    attributes = [(m, _remembered(m)) for m in model.modules()]
    try:
        with keeping_modes(model), torch.no_grad():
            model.train()
            yield
    finally:
        with torch.no_grad():
            for buffer, values in buffers.items():
                buffer.copy_(values)
        for module, (kept, contents) in attributes:
            for container, values in contents:
                _refill(container, values)
            module.__dict__.clear()
            module.__dict__.update(kept)


def _remembered(module: nn.Module) -> Tuple[Dict[str, Any], List]:
    """Attributes of a module, and the contents of what may be filled."""
    kept = dict(module.__dict__)
    filled = [v for v in kept.values() if isinstance(v, _CONTAINERS)]
    return kept, [(value, copy.copy(value)) for value in filled]


def _refill(container: Any, values: Any) -> None:
    """Give a list, dictionary or set what it had."""
    container.clear()
    if isinstance(container, list):
        container.extend(values)
    else:
        container.update(values)
