"""What a search adds to a step, against the number of units and the depth.

The flat part alone (masks, resources, gradient, importance update): for one
number of channels in more and more units, and for units of 64 channels. It is
tensor operations of which the number does not depend on that of the units.
Beside it the folding of the masks: chains of linear layers of 64 features, of
which each width is a unit, against the same chains without masks.

    python benchmarks/scaling.py
"""

from typing import Any, Callable, List, Tuple

import torch
from common import Row, interleave, median, parser, report
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.core import (
    Dim,
    FlatTopk,
    ResourceModel,
    Term,
    resource_loss,
)


class CountOperations(TorchDispatchMode):
    """Counts the tensor operations within its context."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count one and do it."""
        self.number += 1
        return func(*args, **(kwargs or {}))


def flat_step(units: int, width: int, device: str) -> Callable[[], None]:
    """The part of a step that is for all units together."""
    topk = FlatTopk([width] * units).to(device)
    topk.importance.copy_(torch.rand(units * width))
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(0.3)
    widths = [Dim(0.0, ((unit, 1.0),)) for unit in range(units)]
    terms = [
        Term(str(unit), 1.0, (widths[unit], widths[unit - 1]))
        for unit in range(units)
    ]
    model = ResourceModel(terms, units, 0).to(device)
    target = torch.tensor(units * width**2 / 4.0, device=device)
    no_blocks = torch.zeros(0, device=device)
    grad = torch.rand(units * width, device=device)

    def run() -> None:
        topk.pruning_ratio.grad = None
        mask = topk.soft_mask()
        loss = resource_loss(model(topk.kept(), no_blocks), target)
        (loss + (mask * grad).sum()).backward()
        topk.update_importance_(mask.detach(), grad)
        topk.project_()

    return run


def network_step(
    units: int, width: int, batch: int, device: str, masked: bool
) -> Callable[[], None]:
    """A training step of a chain of linear layers, masks folded or none."""
    from dms_mmrazor.layers import fold_input_mask

    weights = [
        (
            torch.randn(width, width, device=device) / width**0.5
        ).requires_grad_()
        for _ in range(units)
    ]
    x = torch.randn(batch, width, device=device)
    topk = FlatTopk([width] * units).to(device)
    topk.num_updates.fill_(1)

    def run() -> None:
        masks: Tuple[Tensor, ...] = topk.split(topk.soft_mask())
        y = x
        for weight, mask in zip(weights, masks):
            folded = fold_input_mask(weight, mask) if masked else weight
            y = torch.relu(torch.nn.functional.linear(y, folded))
        y.sum().backward()
        for weight in weights:
            weight.grad = None

    return run


def measure(units: int, args: Any) -> Row:
    """One row of the table."""
    width, device = args.width, args.device
    functions = {
        'flat': flat_step(units, width, device),
        'same': flat_step(units, args.channels // units, device),
    }
    for key, masked in (('plain', False), ('masked', True)):
        functions[key] = network_step(units, width, args.batch, device, masked)
    with CountOperations() as counter:
        functions['flat']()
    times = interleave(functions, args)
    milliseconds = {key: median(times[key]) * 1e3 for key in functions}
    added = [a - b for a, b in zip(times['masked'], times['plain'])]
    return {
        'units': units,
        'flat_operations': counter.number,
        f'flat_ms_{args.channels}_channels': milliseconds['same'],
        f'flat_ms_{width}_each': milliseconds['flat'],
        'network_ms': milliseconds['plain'],
        'folding_ms': median(added) * 1e3,
        'folding_us_per_layer': median(added) / units * 1e6,
    }


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--units', type=int, nargs='+', default=[1, 10, 50, 100, 500, 1000]
    )
    arguments.add_argument('--channels', type=int, default=64_000)
    arguments.add_argument('--width', type=int, default=64)
    arguments.add_argument('--batch', type=int, default=256)
    args = arguments.parse_args()
    torch.manual_seed(0)
    rows: List[Row] = [measure(units, args) for units in args.units]
    report('scaling', rows, args)


if __name__ == '__main__':
    main()
