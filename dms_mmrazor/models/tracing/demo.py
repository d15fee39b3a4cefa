"""Run a model once on an input of the shape it will be used with."""

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn


def demo_tensor(model: nn.Module, shape: Any) -> Tensor:
    """A fixed pseudo-random image batch on the model's device.

    Args:
        model (nn.Module): The model that will see it.
        shape (tuple): (B, C, H, W).
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(tuple(shape), generator=generator)
    parameter = next(model.parameters(), None)
    return image if parameter is None else image.to(parameter)


def forward_tensors(model: nn.Module, image: Tensor) -> Any:
    """Outputs of the network before losses or post-processing."""
    if isinstance(model, BaseModel):
        return model(image, None, mode='tensor')
    return model(image)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
