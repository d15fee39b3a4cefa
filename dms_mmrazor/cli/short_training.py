"""A few training steps of a model, on made-up data."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.demo import (
    DemoInput,
    demo_samples,
    demo_tensor,
    for_norms,
    forward_tensors,
)
from dms_mmrazor.graph.example_inputs import ExampleInputs
from dms_mmrazor.graph.outputs import flatten_tensors
from dms_mmrazor.graph.running import one_line


class Recipe(NamedTuple):
    """How a model is trained for a few steps.

    Attributes:
        inputs (Any): What it is called with.
        samples (Any): Data samples beside it. Defaults to None.
        own_loss (bool): By ``mode='loss'``, otherwise by the squares of its
            outputs. Defaults to False.
    """

    inputs: Any
    samples: Any = None
    own_loss: bool = False


def find_recipe(model: nn.Module, size: DemoInput) -> Recipe:
    """The model's own loss where made-up samples do for it.

    Args:
        model (nn.Module): A plain model; it is not changed.
        size (tuple | ExampleInputs): (B, C, H, W), or what it is called
            with.
    """
    inputs = demo_tensor(model, for_norms(size))
    if not isinstance(model, BaseModel) or isinstance(size, ExampleInputs):
        return Recipe(inputs)
    for samples in demo_samples(model, size):
        recipe = Recipe(inputs, samples, own_loss=True)
        try:
            _losses(deepcopy(model).train(), recipe)
            return recipe
        except Exception as error:  # whatever a model's code may raise
            raise_device_error(error)
    return Recipe(inputs)


def why_not_trained(model: nn.Module, recipe: Recipe) -> str:
    """Let a plain model take two steps of a training.

    Args:
        model (nn.Module): It changes.
        recipe (Recipe): How it is trained.

    Returns:
        str: What went wrong; empty if it ran, and all losses and gradients
        are finite.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(2):
        try:
            loss = _losses(model, recipe)
            optimizer.zero_grad()
            loss.backward()
        except Exception as error:  # whatever a model's code may raise
            raise_device_error(error)
            return one_line(error)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        dense = [g.to_dense() if g.is_sparse else g for g in grads]
        if not all(bool(t.isfinite().all()) for t in (loss, *dense)):
            return 'losses or gradients are not finite'
        optimizer.step()
    return ''


def _losses(model: nn.Module, recipe: Recipe) -> Tensor:
    """What is minimized."""
    if recipe.own_loss:
        samples = deepcopy(recipe.samples)  # some models write to them
        found = model(recipe.inputs, samples, mode='loss')
        return model.parse_losses(found)[0]
    outputs = flatten_tensors(forward_tensors(model, recipe.inputs))
    return sum(t.square().mean() for t in outputs if t.requires_grad)
