"""Which module of a model fails, and on what input a model runs."""

from contextlib import contextmanager
from functools import partial
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    Tuple,
)

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dms_mmrazor.errors import (
    DMSError,
    raise_device_error,
)
from dms_mmrazor.graph.demo import (
    DemoInput,
    demo_samples,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.graph.example_inputs import KEY, ExampleInputs


def one_line(error: BaseException) -> str:
    """The first line of an error; its type if it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


class ForwardError(Exception):
    """A forward pass failed.

    Args:
        module (str): Full name of the innermost module that ran.
        kind (str): Its class.
        error (Exception): What its code raised.

    Attributes:
        module (str): As above.
    """

    def __init__(self, module: str, kind: str, error: Exception) -> None:
        super().__init__(f'in `{module}` ({kind}): {one_line(error)}')
        self.module = module


@contextmanager
def removing(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks after what runs inside, even if it fails.

    Args:
        hooks (Iterable[RemovableHandle]): What registering them gave.
    """
    hooks = list(hooks)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def intercepting(
    modules: Collection[nn.Module], around: Callable[..., Any]
) -> Iterator[None]:
    """Let a function decide what modules do when they are called.

    Unlike hooks before torch 2.0 it sees keyword arguments. Hooks run
    outside of it.

    Args:
        modules (Collection[nn.Module]): Modules of a throw-away copy.
        around (Callable): Called with the module, its own ``forward`` and
            the arguments.
    """
    own = {module: module.__dict__.get('forward') for module in modules}
    for module in own:
        module.forward = partial(around, module, module.forward)
    try:
        yield
    finally:
        for module, forward in own.items():
            del module.forward
            if forward is not None:
                module.forward = forward


@contextmanager
def naming_modules(model: nn.Module) -> Iterator[None]:
    """Turn what a module's code raises into a :class:`ForwardError`.

    Args:
        model (nn.Module): The model that runs inside.
    """
    running: List[str] = []
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, args: Any) -> None:
        running.append(names[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    hooks = [m.register_forward_pre_hook(enter) for m in names]
    hooks += [m.register_forward_hook(leave) for m in names]
    try:
        with removing(hooks):
            yield
    except Exception as error:  # whatever a module's code may raise
        raise_device_error(error)
        name = running[-1] if running else ''
        kind = type(model.get_submodule(name)).__name__
        raise ForwardError(name or 'the model', kind, error) from error


@contextmanager
def in_double(model: nn.Module, at_once: bool = False) -> Iterator[None]:
    """Let a model compute in double precision for a while.

    Each module's own tensors are converted while it runs, which takes next
    to no memory; afterwards it has those that it had.

    Args:
        model (nn.Module): Any model.
        at_once (bool): Convert all of them before, where a module looks at
            tensors of another one. Defaults to False.
    """
    before: List[Tuple[nn.Module, Dict[str, Tensor]]] = []

    def convert(module: nn.Module, args: Any = None) -> None:
        own = {**module._parameters, **module._buffers}
        tensors = {
            key: tensor.data
            for key, tensor in own.items()
            if tensor is not None and tensor.is_floating_point()
        }
        before.append((module, tensors))
        for key, tensor in tensors.items():
            own[key].data = tensor.double()

    def restore(module: nn.Module, args: Any = None, out: Any = None) -> None:
        for key, tensor in before.pop()[1].items():
            getattr(module, key).data = tensor

    modules = list(model.modules())
    hooks: List[RemovableHandle] = []
    try:
        if at_once:
            for module in modules:
                convert(module)
        else:
            hooks += [m.register_forward_pre_hook(convert) for m in modules]
            hooks += [m.register_forward_hook(restore) for m in modules]
        with removing(hooks):
            yield
    finally:
        # Of modules that run still if one fails, and of all at once.
        while before:
            restore(before[-1][0])


def check_demo_input(
    model: nn.Module,
    input_size: DemoInput,
    key: str = 'mutator.parse_cfg.demo_input',
) -> None:
    """Make sure that a model runs on the input it is searched for.

    Args:
        model (nn.Module): A plain model; it is not changed.
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with.
        key (str): Where the user has set it, for messages. Defaults to
            'mutator.parse_cfg.demo_input'.

    Raises:
        DMSError: If it does not.
    """
    try:
        with evaluating(model), naming_modules(model):
            forward_tensors(model, demo_tensor(model, input_size))
    except ForwardError as error:
        advice = 'Give the shape that it is trained on.'
        if isinstance(input_size, ExampleInputs) or key == KEY:
            advice = 'Give what it is called with in training.'
        elif _runs_on_samples(model, input_size):
            advice = (
                'It does run with data samples, which only training and '
                'tests have (as in the DETR family): no shape helps. Search '
                'a model whose `mode="tensor"` takes images alone.'
            )
        raise DMSError(
            f'{type(model).__name__} does not run on an input of '
            f'`{key}`={input_size}: it fails {error}. {advice}'
        ) from error


def _runs_on_samples(model: nn.Module, input_size: Tuple[int, ...]) -> bool:
    """Whether a model that fails on images alone runs with data samples."""
    if not isinstance(model, BaseModel):
        return False
    image = demo_tensor(model, (2, *input_size[1:]))
    for samples in demo_samples(model, input_size):
        try:
            with evaluating(model):
                model(image, samples, mode='tensor')
            return True
        except Exception as error:  # whatever a module's code may raise
            raise_device_error(error)
    return False


def live_tensors(model: nn.Module) -> Dict[str, Tensor]:
    """All parameters and buffers, whatever a checkpoint has; no copies."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in tensors}
