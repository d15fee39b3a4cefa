"""The masks of all units together: one flat top-k and its gradient.

Compared in turn with one sort of as many elements, and with the comparison of
all pairs as Eq. 2 of the paper is written (where N x N fits into memory).

    python benchmarks/topk.py
"""

from typing import Any, Callable, Dict, List

import torch
from common import Row, interleave, median, parser, ratio, report
from torch import Tensor

from dms_mmrazor.core import FlatTopk

PAIRS = 100_000_000  # most pairs that are compared


def make_topk(elements: int, units: int, device: str) -> FlatTopk:
    """Units of random sizes in the middle of a search."""
    cuts = torch.randperm(elements - 1)[: units - 1].sort().values + 1
    edges = [0, *cuts.tolist(), elements]
    sizes = [b - a for a, b in zip(edges, edges[1:])]
    topk = FlatTopk(sizes).to(device)
    topk.importance.copy_(torch.rand(elements))
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(0.3)
    return topk


def pairwise_masks(topk: FlatTopk) -> Tensor:
    """Eq. 2 and 3 unit by unit, with a comparison of all pairs."""
    masks = []
    for index, scores in enumerate(topk.split(topk.importance)):
        less = scores[:, None] > scores[None]
        normalized = (less.sum(1) + 0.5) / len(scores)
        ratio = topk.pruning_ratio[index]
        masks.append(torch.sigmoid(len(scores) * (normalized - ratio)))
    return torch.cat(masks)


def measure(elements: int, units: int, args: Any) -> Row:
    """One row of the table."""
    topk = make_topk(elements, units, args.device)
    grad = torch.rand(elements, device=args.device)
    values = torch.rand(elements, device=args.device)

    def step(masks: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            topk.pruning_ratio.grad = None
            masks().backward(grad)

        return run

    functions: Dict[str, Callable[[], Any]] = {
        'sort': values.sort,
        'masks': topk.soft_mask,
        'with_gradient': step(topk.soft_mask),
    }
    pairs = sum(size**2 for size in topk.sizes)
    if pairs <= PAIRS:
        functions['pairwise'] = step(lambda: pairwise_masks(topk))
    times = interleave(functions, args)
    row: Row = {'elements': elements, 'units': units}
    for key in ('sort', 'masks', 'with_gradient', 'pairwise'):
        known = key in times
        row[f'{key}_ms'] = median(times[key]) * 1e3 if known else None
    row['masks_to_sort'] = ratio(times, 'masks', 'sort')
    return row


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--elements',
        type=int,
        nargs='+',
        default=[10**k for k in range(1, 7)],
    )
    arguments.add_argument(
        '--units', type=int, nargs='+', default=[1, 100, 1000, 10_000]
    )
    args = arguments.parse_args()
    torch.manual_seed(0)
    rows: List[Row] = [
        measure(elements, units, args)
        for elements in args.elements
        for units in args.units
        if units <= elements
    ]
    report('topk', rows, args)


if __name__ == '__main__':
    main()
