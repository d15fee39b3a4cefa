"""How many layers Torch-Pruning cuts in the models of the plain coverage.

    pip install -r requirements/benchmarks.txt timm
    python benchmarks/torch_pruning_coverage.py [--only NAME …]

Every model of `docs/coverage_plain.md` gets the recipe of Torch-Pruning's
README, the same lines for all of them: half of each group's channels by
magnitude, the layer of the classes held. A layer counts as cut if its input
or output is narrower afterwards; then the model must still run and take a
step. What is searched here is read from `docs/coverage_plain.json`. Rows are
kept as they end: the command goes on where it was stopped. A model that takes
longer than `--limit` seconds counts as a failure.
"""

import argparse
import json
import multiprocessing
import os.path as osp
import sys
from typing import Any, Dict, List, Tuple

import torch
from torch import nn

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
sys.path.append(osp.join(ROOT, 'tools', 'analysis_tools'))

from coverage_plain import (  # noqa: E402
    CLASSES,
    DETECTORS,
    PLAIN_SECTIONS,
)

from dms_mmrazor.files import write_text  # noqa: E402

RESULTS = osp.join(ROOT, 'benchmarks/results/torch_pruning_coverage.json')
CASES = {
    name: case
    for part in PLAIN_SECTIONS.values()
    for name, case in part.items()
    # Detectors take lists of images and targets, which the recipe does not.
    if case.model not in DETECTORS
}
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)

Widths = Dict[str, Tuple[int, int]]


def cut_by_half(model: nn.Module, image: torch.Tensor) -> None:
    """What a user of Torch-Pruning writes for any model."""
    import torch_pruning as tp

    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    heads = [m for m in linear if m.out_features == CLASSES]
    pruner = tp.pruner.MagnitudePruner(
        model,
        image,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=heads,
    )
    pruner.step()


def widths(model: nn.Module) -> Widths:
    """Input and output channels of all conv and linear layers, by name."""
    return {
        name: tuple(layer.weight.shape[:2])
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS)
    }


def measure(name: str) -> Dict[str, Any]:
    """Layers cut and in all, and where it fails, in one line."""
    case = CASES[name]
    torch.manual_seed(0)
    model = case.build().eval()
    image = torch.rand(2, *case.shape[1:])
    before = widths(model)
    row: Dict[str, Any] = {'layers': len(before), 'cut': 0, 'failure': ''}
    try:
        cut_by_half(model, image)
        after = widths(model)
        row['cut'] = sum(before[n] != after.get(n) for n in before)
        outputs = model.train()(image)
        if isinstance(outputs, dict):
            outputs = outputs['out']
        outputs.square().mean().backward()
    except Exception as error:  # whatever the other package raises
        line = (str(error).strip().splitlines() or [''])[0]
        row['failure'] = f'{type(error).__name__}: {line[:100]}'
    return row


def measure_within(name: str, seconds: float) -> Dict[str, Any]:
    """The same in a process of its own, or that it took too long."""
    with multiprocessing.get_context('fork').Pool(1) as pool:
        try:
            return pool.apply_async(measure, (name,)).get(seconds)
        except multiprocessing.TimeoutError:
            layers = len(widths(CASES[name].build()))
            failure = f'not ready after {seconds:.0f} s'
            return {'layers': layers, 'cut': 0, 'failure': failure}


def table(rows: Dict[str, Any]) -> str:
    """Markdown: both packages side by side."""
    path = osp.join(ROOT, 'docs/coverage_plain.json')
    with open(path, encoding='utf-8') as file:
        ours = json.load(file)
    lines = [
        '| model | Torch-Pruning: layers cut | then it runs | searched here |',
        '| --- | --- | --- | --- |',
    ]
    for name, row in rows.items():
        mine = ours.get(name, {})
        found = 'not measured' if not mine else 'stops'
        if 'layers' in mine:
            found = f'{mine["searched"]} / {mine["layers"]}'
        runs = f'no: {row["failure"]}' if row['failure'] else 'yes'
        runs = runs.replace('|', '\\|')
        cut = f'{row["cut"]} / {row["layers"]}'
        lines.append(f'| {name} | {cut} | {runs} | {found} |')
    return '\n'.join([*lines, '', *summary(rows, ours)])


def summary(rows: Dict[str, Any], ours: Dict[str, Any]) -> List[str]:
    """Shares over the models that both have a row for."""
    both = [name for name in rows if name in ours]
    if not both:
        return []
    whole = [n for n in both if not rows[n]['failure']]
    cut = sum(rows[n]['cut'] / rows[n]['layers'] for n in whole) / len(both)
    ready = [n for n in both if 'layers' in ours[n]]
    found = sum(ours[n]['searched'] / ours[n]['layers'] for n in ready)
    return [
        f'Of {len(both)} models Torch-Pruning leaves {len(whole)} that run; '
        f'it cuts {cut:.0%} of the layers; here {len(ready)} are searched, '
        f'{found / len(both):.0%} of the layers (on both sides a model that '
        'fails or stops with advice counts as 0). User code: 4 statements '
        'there (the layers to hold, the pruner, a step), 3 here (`Search`, '
        '`step`, `export`). Neither gets help for a single model; '
        "Torch-Pruning asks for a transformer's `num_heads` by layer, which "
        'this recipe does not give.',
    ]


def main() -> None:
    """Measure what is missing, write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=sorted(CASES))
    parser.add_argument('--out', default=RESULTS, help='JSON file')
    parser.add_argument('--limit', type=float, default=120)
    args = parser.parse_args()
    rows: Dict[str, Any] = {}
    if osp.exists(args.out):
        with open(args.out, encoding='utf-8') as file:
            rows = json.load(file)
    for name in args.only or [n for n in CASES if n not in rows]:
        rows[name] = measure_within(name, args.limit)
        print(name, rows[name], flush=True)
        rows = {n: rows[n] for n in CASES if n in rows}
        write_text(args.out, f'{json.dumps(rows, indent=1)}\n')
        text = table(rows)
        write_text(f'{osp.splitext(args.out)[0]}.md', f'{text}\n')
    print(table(rows))


if __name__ == '__main__':
    main()
