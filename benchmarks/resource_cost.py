"""Cost of the resource model: its value and gradient in a step.

Compared with a plain training step of one image, in the same run.

`resource_ms`: from the pruning ratios to their gradient, with the masks of the
blocks; `model_us`: the resource model alone, from widths to their gradient.

    python benchmarks/resource_cost.py
"""

from copy import deepcopy
from typing import Any, Callable, Dict

import torch
from common import Row, interleave, median, parser, ratio, report
from models import CASES, build, make_batch, make_search


def measure(name: str, args: Any) -> Row:
    """One row of the table."""
    case = CASES[name]
    torch.manual_seed(0)
    plain = build(case).to(args.device)
    search = make_search(deepcopy(plain), case, verify=False).to(args.device)
    search.set_constraints({'macs': 1.0})
    search.set_targets({'macs': search.mutator.table.full['macs'] / 2})
    search.mutator.topk.num_updates.fill_(1)
    batch = make_batch(case._replace(batch=1), 'cpu')
    batch = plain.data_preprocessor(batch, True)

    def step() -> None:
        losses = plain(**batch, mode='loss')
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        plain.zero_grad()

    def resources() -> None:
        blocks = search.mutator.topk.soft_mask()[
            search.mutator.masks.num_channels :
        ]
        search.mutator.masks.table.blocks = blocks
        search.resource_losses()['loss_macs'].backward()
        search.mutator.topk.pruning_ratio.grad = None

    model = search.mutator.table.model('macs')
    kept = search.mutator.masks.kept().detach().requires_grad_()
    blocks = search.mutator.masks.soft_blocks().detach()

    def model_alone() -> None:
        torch.autograd.grad(model(kept, blocks), kept)

    functions: Dict[str, Callable[[], None]] = {
        'plain': step,
        'resources': resources,
        'model': model_alone,
    }
    times = interleave(functions, args)
    return {
        'model': name,
        'input': f'1x{case.size}^2',
        'terms': len(model.layers),
        'units': len(search.mutator.units) + len(search.mutator.depth_units),
        'plain_s': median(times['plain']),
        'resource_ms': median(times['resources']) * 1e3,
        'model_us': median(times['model']) * 1e6,
        'share': ratio(times, 'resources', 'plain'),
    }


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--models', nargs='+', default=['resnet50', 'resnet152']
    )
    args = arguments.parse_args()
    report(
        'resource_cost', [measure(name, args) for name in args.models], args
    )


if __name__ == '__main__':
    main()
