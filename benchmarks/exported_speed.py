"""Measured speed of exported models beside their MACs.

Structures with random importances and widths, fitted to half of the MACs as
an export does, with and without divisible widths; `uniform` narrows every
width by one ratio. Time is that of one batch in evaluation, in turn with the
full model; ONNX Runtime runs the model that `export_onnx` writes.

    python benchmarks/exported_speed.py --models resnet50
"""

import logging
import os.path as osp
import random
import tempfile
from typing import Any, Callable, Dict, List

import torch
from common import Row, interleave, median, parser, ratio, report, synchronize
from models import CASES, build, make_search
from torch import nn

from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import export_subnet, uniform_structure
from dms_mmrazor.subnet import prune
from dms_mmrazor.subnet.onnx_export import export_onnx
from dms_mmrazor.supernet.plain import plain_copy


def scatter(search: DMSAlgorithm, seed: int = 0) -> None:
    """Uneven widths and depths, as a search finds them."""
    generator = random.Random(seed)
    mutator = search.mutator
    importance = mutator.topk.importance
    importance.copy_(torch.rand(importance.shape))
    mutator.topk.num_updates.fill_(1)
    choices = {}
    for unit in mutator.units:
        kept = round(unit.num_channels * generator.uniform(0.5, 1.0))
        kept = round(kept / unit.step) * unit.step
        choices[unit.name] = min(max(kept, unit.min_kept), unit.max_kept)
    mutator.set_choices(choices)


def exported(search: DMSAlgorithm, target: float) -> Dict[str, nn.Module]:
    """The full model and what is exported of it."""
    targets = {'macs': target * search.mutator.table.full['macs']}
    models = {'full': plain_copy(search.architecture)}
    for divisor in (1, 8):
        subnet = export_subnet(search, targets, divisor)
        models[f'divisor {divisor}'] = subnet.model
    structure = uniform_structure(search.mutator, targets)
    models['uniform'] = prune(plain_copy(search.architecture), structure)
    return {name: model.eval() for name, model in models.items()}


def sessions(
    models: Dict[str, nn.Module], image: torch.Tensor, folder: str
) -> Dict[str, Callable[[], Any]]:
    """ONNX Runtime on each model; empty where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    found = {}
    for name, model in models.items():
        path = osp.join(folder, f'{name}.onnx')
        export_onnx(model, (1, *image.shape[1:]), path)
        session = onnxruntime.InferenceSession(
            path, options, providers=['CPUExecutionProvider']
        )
        feed = {'input': image.cpu().numpy()}
        found[name] = lambda s=session, f=feed: s.run(None, f)
    return found


def measure(name: str, args: Any) -> List[Row]:
    """Rows of one model."""
    from dms_mmrazor.graph import count_macs

    case = CASES[name]
    torch.manual_seed(0)
    search = make_search(build(case), case, verify=False)
    scatter(search)
    models = exported(search, args.target)
    shape = (1, 3, case.size, case.size)
    macs = {key: count_macs(model, shape) for key, model in models.items()}
    image = torch.randn(args.batch, *shape[1:], device=args.device)

    def eager(model: nn.Module) -> Callable[[], None]:
        model.to(args.device)

        @torch.no_grad()
        def run() -> None:
            model(image, mode='tensor')
            synchronize(args.device)

        return run

    with tempfile.TemporaryDirectory() as folder:
        onnx = sessions(models, image, folder)
        onnx_times = interleave(onnx, args) if onnx else {}
    functions = {key: eager(model) for key, model in models.items()}
    times = interleave(functions, args)
    return [
        {
            'model': name,
            'exported': key,
            'batch': args.batch,
            'macs_ratio': macs[key] / macs['full'],
            'eager_ms': median(times[key]) * 1e3,
            'eager_ratio': ratio(times, key, 'full'),
            'onnx_ms': median(onnx_times[key]) * 1e3 if onnx else None,
            'onnx_ratio': ratio(onnx_times, key, 'full') if onnx else None,
        }
        for key in models
    ]


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--models', nargs='+', default=['resnet50', 'mobilenet_v2']
    )
    arguments.add_argument('--target', type=float, default=0.5)
    arguments.add_argument('--batch', type=int, default=1)
    args = arguments.parse_args()
    logging.getLogger('onnx').setLevel(logging.ERROR)
    rows = [row for name in args.models for row in measure(name, args)]
    report('exported_speed', rows, args)


if __name__ == '__main__':
    main()
