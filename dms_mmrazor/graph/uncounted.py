"""Products that run outside of the layers whose MACs are counted."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping

from torch import nn

from dms_mmrazor.graph.demo import (
    DemoInput,
    batch_of,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.layers import is_weighted
from dms_mmrazor.layers.block import multiplies

try:
    from torch.utils.flop_counter import FlopCounterMode
except ImportError:  # torch < 2.1
    FlopCounterMode = None


def uncounted_macs(
    model: nn.Module, input_size: DemoInput
) -> Dict[str, float]:
    """MACs that ``profile_layers`` does not see, by the module they are in.

    A model may multiply without a layer: attention of its own, or
    ``functional.linear`` with a weight of its own.

    Args:
        model (nn.Module): A plain model; its state is not changed.
        input_size (tuple): (B, C, H, W); the MACs are per image.

    Returns:
        dict[str, float]: Name of a module → MACs of its own code, those of
        its submodules left out; empty with torch < 2.1, which has no
        counter of operators.
    """
    image, batch = demo_tensor(model, input_size), batch_of(input_size)
    with evaluating(model), counting_elsewhere(model, batch) as found:
        forward_tensors(model, image)
    return found


@contextmanager
def counting_elsewhere(
    model: nn.Module, batch: int
) -> Iterator[Dict[str, float]]:
    """Count what runs inside, for :func:`uncounted_macs`.

    Args:
        model (nn.Module): A plain model.
        batch (int): Images that it is given.

    Yields:
        dict[str, float]: Module → MACs per image, filled as it runs.
    """
    found: Dict[str, float] = {}
    if FlopCounterMode is None:
        yield found
        return
    names = {module: name for name, module in model.named_modules()}
    counted = {
        part
        for module in names
        if is_weighted(module) or multiplies(module)
        for part in module.modules()
    }
    # Of each module that runs: the count at its start, that of submodules.
    running: List[List[int]] = [[0, 0]]
    counter = FlopCounterMode(display=False)

    def begin(module: nn.Module, inputs: Any) -> None:
        running.append([counter.get_total_flops(), 0])

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        start, inside = running.pop()
        whole = counter.get_total_flops() - start
        running[-1][1] += whole
        if whole > inside and module not in counted:
            macs = (whole - inside) / 2 / batch
            found[names[module]] = found.get(names[module], 0.0) + macs

    handles = [m.register_forward_pre_hook(begin) for m in names]
    handles += [m.register_forward_hook(end) for m in names]
    try:
        # The counter waits for gradients of what asks for some, and fails for
        # views of parameters, which have none here.
        with _untrained(model), counter:
            yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _untrained(model: nn.Module) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient inside."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def uncounted_warning(uncounted: Mapping[str, float], counted: float) -> str:
    """What to tell a user about MACs that are not counted.

    Args:
        uncounted (dict[str, float]): From :func:`uncounted_macs`.
        counted (float): MACs of all counted layers.

    Returns:
        str: One line; empty if less than 1 % is missing.
    """
    missing = sum(uncounted.values())
    if missing <= 0.01 * (counted + missing):
        return ''
    names = sorted(uncounted, key=lambda name: (-uncounted[name], name))
    shown = ', '.join(f'`{name}`' for name in names[:3])
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return (
        f'{missing / (counted + missing):.1%} of the MACs are not counted: '
        f'{shown}{more} multiply outside of convolutions, linear layers and '
        'known attentions. Targets in MACs are about the other '
        f'{counted / 1e9:.4g}G.'
    )
