"""Run a model once on an input of the shape it will be used with."""

from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.errors import DMSError, raise_device_error
from dms_mmrazor.graph.example_inputs import ExampleInputs
from dms_mmrazor.graph.light_copy import is_lifeless
from dms_mmrazor.graph.model_kind import model_kind_of, vocabulary_of
from dms_mmrazor.layers.by_type import load_plugin

_SMALL = 128
"""Side of a small image: what usual networks divide without a rest."""

DemoInput = Union[Tuple[int, ...], ExampleInputs]
"""Shape (B, C, H, W) of images, or arguments of another kind."""

_KERNELS = ('activation_relu_or_gelu', 'use_nested_tensor')
"""By what encoders of torch choose kernels of their own, 0 for none."""


def demo_tensor(model: nn.Module, shape: Any) -> Any:
    """A fixed pseudo-random image batch on the model's device.

    Args:
        model (nn.Module): The model that will see it.
        shape (tuple | ExampleInputs): (B, C, H, W), or what it is called
            with, which is moved to the device.
    """
    # The type of most numbers: a vector of its own may have another one.
    real = [p for p in model.parameters() if p.is_floating_point()]
    parameter = max(real, key=Tensor.numel, default=None)
    if isinstance(shape, ExampleInputs):
        return shape if parameter is None else shape.to(parameter)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(tuple(shape), generator=generator)
    vocabulary = vocabulary_of(model)
    if vocabulary and len(shape) == 2:
        tokens = torch.randint(vocabulary, tuple(shape), generator=generator)
        return tokens.to(parameter.device)
    return image if parameter is None else image.to(parameter)


def forward_tensors(
    model: nn.Module,
    image: Union[Tensor, ExampleInputs],
    few_regions: bool = False,
) -> Any:
    """Outputs of the network before losses or post-processing.

    Args:
        model (nn.Module): The model.
        image (Tensor | ExampleInputs): [B, C, H, W], or what it is called
            with.
        few_regions (bool): Give the second stage of a two-stage detector
            fewer regions than in a test, where their number does not
            matter. Defaults to False.
    """
    if vocabulary_of(model) and not isinstance(model, BaseModel):
        return _logits(model, image)
    if isinstance(image, ExampleInputs):
        return image.call(model)
    extras = model_kind_of(model).extras(model, image.shape, few_regions)
    if extras is not None:
        return extras(model, model, image)
    if isinstance(model, BaseModel):
        return model(image, None, mode='tensor')
    return model(image)


def _logits(model: nn.Module, tokens: Union[Tensor, ExampleInputs]) -> Any:
    """Logits alone: cached keys and values have other shapes in a subnet."""
    if isinstance(tokens, Tensor):
        tokens = ExampleInputs((), {'input_ids': tokens})
    kwargs = dict(tokens.kwargs)
    if 'use_cache' in signature(model.forward).parameters:
        kwargs['use_cache'] = False
    outputs = ExampleInputs(tokens.args, kwargs).call(model)
    return getattr(outputs, 'logits', outputs)


def with_tensor_forward(
    model: nn.Module, input_size: Sequence[int]
) -> nn.Module:
    """Let ``forward`` of a model that needs more than images need no more.

    Args:
        model (nn.Module): A throw-away copy; its class changes. Models that
            run on images alone stay as they are.
        input_size (Sequence[int]): (B, C, H, W) of what it will see.
    """
    kind = type(model)
    tensors = model_kind_of(model).extras(model, input_size)
    if tensors is None:
        return model

    def forward(
        self: nn.Module,
        inputs: Tensor,
        data_samples: Any = None,
        mode: str = 'tensor',
    ) -> Any:
        # Not the class from below, which would come back here.
        return tensors(self, partial(kind.forward, self), inputs)

    model.__class__ = type(kind.__name__, (kind,), {'forward': forward})
    return model


def limit_sides(shape: Sequence[int], most: int) -> Tuple[int, ...]:
    """(B, C, H, W) with at most so many pixels in height and width."""
    return (*shape[:2], *(min(side, most) for side in shape[2:]))


def batch_of(size: DemoInput) -> int:
    """How many images, or examples of another kind."""
    return size.batch if isinstance(size, ExampleInputs) else size[0]


def one_of(size: DemoInput) -> DemoInput:
    """A single image, or example of another kind."""
    if isinstance(size, ExampleInputs):
        return size.first()
    return (1, *size[1:])


def for_norms(size: DemoInput) -> DemoInput:
    """Two images: a norm in training mode needs two values per channel."""
    if isinstance(size, ExampleInputs):
        return size.for_norms()
    return (2, *size[1:])


def small_shape(model: nn.Module, shape: DemoInput) -> DemoInput:
    """Shape of a small demo input, where a model takes another size.

    What a block does, and statistics of norms, show on small images, too.

    Args:
        model (nn.Module): A throw-away copy of a model.
        shape (tuple | ExampleInputs): (B, C, H, W) of the demo input, or
            what it is called with, which stays.

    Returns:
        tuple[int, ...]: (B, C, h, w) with at most 128 x 128 pixels;
        ``shape`` if that is smaller or the model does not run on less.
    """
    if isinstance(shape, ExampleInputs):
        return shape
    small = limit_sides(shape, _SMALL)
    if small == tuple(shape):
        return small
    try:
        with evaluating(model):
            forward_tensors(model, demo_tensor(model, small), True)
    except Exception as error:  # whatever a module's code may raise
        raise_device_error(error)
        return tuple(shape)
    return small


def demo_samples(model: nn.Module, size: Tuple[int, ...]) -> Iterator[Any]:
    """What a model may want to know of two images; at last, nothing.

    Made up by the plugins of its libraries, where images alone are not
    enough.

    Args:
        model (nn.Module): A model of one of OpenMMLab's libraries.
        size (tuple): (B, C, H, W); B does not matter.
    """
    # The library that another one extends comes first, as mmdet for mmyolo.
    bases = [base.__module__ for base in reversed(type(model).mro())]
    for library in dict.fromkeys(name.partition('.')[0] for name in bases):
        make = getattr(load_plugin(library), 'demo_samples', None)
        if make is not None:
            yield make(model, size)
    yield None


def image_meta(shape: Sequence[int]) -> Dict[str, Any]:
    """What a data sample tells of an image that is not padded.

    Args:
        shape (Sequence[int]): (B, C, H, W).
    """
    size = tuple(shape[2:])
    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return dict({key: size for key in keys}, scale_factor=(1.0, 1.0))


def middle_box(size: Sequence[int]) -> Tensor:
    """The middle of an image as a box [1, 4], in pixels.

    Args:
        size (Sequence[int]): (B, C, H, W).
    """
    height, width = size[2:]
    corners = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    return torch.tensor([corners])


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """Whatever mode modules get inside, that of each comes back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode comes back.

    Encoder layers of torch call their modules nevertheless, which are
    looked at, on tensors of one shape; on torch < 2 a hook does not tell
    them to.
    """
    chosen = [
        (module, key, module.__dict__[key])
        for module in model.modules()
        for key in _KERNELS
        if key in module.__dict__
    ]
    try:
        with keeping_modes(model), torch.no_grad():
            model.eval()
            for module, key, _ in chosen:
                module.__dict__[key] = 0
            yield
    finally:
        for module, key, kernel in chosen:
            module.__dict__[key] = kernel


@torch.no_grad()
def enliven(model: nn.Module, shape: Any) -> None:
    """Give a fresh model statistics and vectors of a trained one's kind.

    In a model that was just built signals die within a few layers (its
    norms have no statistics), and zero-initialized norms, layer scales or
    heads hide whole branches: nothing could be told from its outputs.

    Args:
        model (nn.Module): A throw-away copy; its norms, all parameters with
            at most one dimension and all constant ones change.
        shape (tuple | ExampleInputs): (B, C, H, W) of a demo input.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() <= 1:
            values = torch.rand(parameter.shape, generator=generator)
            parameter.copy_(0.5 + values)
        elif is_lifeless(parameter):
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values / parameter[0].numel() ** 0.5)
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    with keeping_modes(model):
        model.eval()
        for module in norms:
            module.train()
            module.momentum = 1.0
        forward_tensors(model, demo_tensor(model, for_norms(shape)), True)


def check_input(key: str, shape: Any) -> None:
    """Raise DMSError for a demo input that is no shape.

    Args:
        key (str): Where a config says it, for the message.
        shape (Any): (B, C, H, W) or the like; a config of one of mmrazor's
            demo inputs passes.
    """
    if isinstance(shape, Mapping) or hasattr(shape, 'input_shape'):
        return
    several = isinstance(shape, (tuple, list)) and len(shape) > 1
    if several and all(type(side) is int and side > 0 for side in shape):
        return
    side = shape if type(shape) is int and shape > 0 else 224
    raise DMSError(
        f'`{key}` must be the shape (B, C, H, W) of an input, got {shape!r}: '
        f'write `(1, 3, {side}, {side})` for images of {side} x {side}.'
    )
