"""Predicted against measured latency of random structures.

For each network, layers are measured and fitted as `tools/profile_latency.py`
does. Further structures, of random widths (multiples of the divisor) and
depths, which no fit sees, run in turns with those that are fitted, and their
medians are compared with the predictions. Writes
latency.json, latency.md and latency.png into benchmarks/results; rows of
networks that are not measured again are kept.

    python benchmarks/latency.py --threads 1
"""

import json
import os.path as osp
import statistics
from typing import List, Sequence

from common import RESULTS, Row, machine, parser, report
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from models import CASES, build, make_search

from dms_mmrazor.core import rank_correlation
from dms_mmrazor.engine.search_config import build_algorithm
from dms_mmrazor.files import write_text, written_at_once
from dms_mmrazor.latency import (
    Settings,
    SubnetSampler,
    find_device,
    fit_layers,
    use_threads,
)
from dms_mmrazor.models.algorithms import DMSAlgorithm

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CIFAR = 'configs/cifar10/resnet28_dms-search_1xb128-4e_cifar10.py'
SIZES = {'resnet28_cifar': 32, 'mobilenet_v2': 128, 'resnet50': 128}
COLORS = ('#2b6c99', '#c2571a', '#4b8b3b')


def make(name: str) -> DMSAlgorithm:
    """The search of a network."""
    if name == 'resnet28_cifar':
        return build_algorithm(Config.fromfile(osp.join(ROOT, CIFAR)))
    case = CASES[name]._replace(size=SIZES[name])
    return make_search(build(case), case)


def compare(name: str, settings: Settings) -> List[Row]:
    """Rows of one network."""
    algorithm = make(name)
    mutator = algorithm.mutator
    device = find_device(settings.device)
    size = (settings.batch_size, *mutator.analyzer.input_size[1:])
    sampler = SubnetSampler(algorithm, settings.seed, device)
    supernet = sampler.supernet
    with use_threads(settings.threads):
        found = fit_layers(sampler, supernet, settings, size, device)
    whole = mutator.table.full
    numbers = [(1.0, found.supernet, whole['latency'])]
    for choice, latency in zip(found.choices, found.latencies):
        macs = mutator.resource_of('macs', choice) / whole['macs']
        predicted = mutator.resource_of('latency', choice)
        numbers.append((macs, latency, predicted))
    return [
        {
            'network': name,
            'structure': index,
            'macs': round(macs, 3),
            'measured_ms': round(latency, 4),
            'predicted_ms': round(predicted, 4),
            'error': round(predicted / latency - 1, 4),
        }
        for index, (macs, latency, predicted) in enumerate(numbers)
    ]


def kept_rows(path: str, names: Sequence[str]) -> List[Row]:
    """Rows of an earlier run about other networks."""
    if not osp.exists(path):
        return []
    with open(path) as file:
        rows = json.load(file)['rows']
    return [row for row in rows if row['network'] not in names]


def summarize(rows: List[Row]) -> List[Row]:
    """Errors and rank correlation of each network, supernets left out."""
    result = []
    for name in dict.fromkeys(row['network'] for row in rows):
        mine = [r for r in rows if r['network'] == name and r['structure']]
        errors = [abs(row['error']) for row in mine]
        columns = [[r[k] for r in mine] for k in ('measured_ms', 'macs')]
        predicted = [row['predicted_ms'] for row in mine]
        result.append(
            {
                'network': f'{name}, {SIZES[name]}x{SIZES[name]}',
                'structures': len(mine),
                'mean error': f'{statistics.mean(errors):.1%}',
                'worst error': f'{max(errors):.1%}',
                'rank correlation': _rounded(columns[0], predicted),
                'that of MACs': _rounded(*columns),
            }
        )
    return result


def _rounded(first: List[float], second: List[float]) -> str:
    return f'{rank_correlation(first, second):.3f}'


def markdown(rows: List[Row]) -> str:
    """Rows as a table."""
    lines = ['| ' + ' | '.join(rows[0]) + ' |', '|---' * len(rows[0]) + '|']
    for row in rows:
        lines.append('| ' + ' | '.join(map(str, row.values())) + ' |')
    return '\n'.join(lines)


def plot(rows: List[Row], path: str) -> None:
    """Predicted over measured latency, with a band of 10 %."""
    names = list(dict.fromkeys(row['network'] for row in rows))
    figure = Figure(figsize=(3.2 * len(names), 3.2), facecolor='white')
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), index + 1)
        mine = [row for row in rows if row['network'] == name]
        x = [row['measured_ms'] for row in mine]
        ends = [0, 1.08 * max(x)]
        low, high = ([f * end for end in ends] for f in (0.9, 1.1))
        axes.fill_between(ends, low, high, color='#e3e7ea')
        axes.plot(ends, ends, color='#b4bcc2', linewidth=1)
        y = [row['predicted_ms'] for row in mine]
        axes.scatter(x, y, s=14, color=COLORS[index % 3], zorder=3)
        axes.set_title(name, size=10)
        axes.set_xlabel('measured, ms', size=9)
        axes.tick_params(labelsize=8)
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
    figure.axes[0].set_ylabel('predicted, ms', size=9)
    figure.tight_layout()
    with written_at_once(path) as temporary:
        figure.savefig(temporary, format='png', dpi=120)


def main() -> None:
    """Measure, and write the table and the plot."""
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=15)
    arguments.add_argument('--models', nargs='+', default=list(SIZES))
    arguments.add_argument('--batch-size', type=int, default=1)
    arguments.add_argument('--threads', type=int)
    arguments.add_argument('--divisor', type=int, default=8)
    arguments.add_argument('--structures', type=int, default=20)
    args = arguments.parse_args()
    settings = Settings(
        device=args.device,
        batch_size=args.batch_size,
        threads=args.threads,
        divisor=args.divisor,
        rounds=args.rounds,
        held_out=args.structures,
    )
    args.out = args.out or osp.join(RESULTS, 'latency.json')
    rows = kept_rows(args.out, args.models)
    for name in args.models:
        rows += compare(name, settings)
    report('latency', rows, args)
    summary = markdown(summarize(rows))
    print(summary)
    base = osp.splitext(args.out)[0]
    plot(rows, f'{base}.png')
    facts = {
        **machine(args.device),
        'threads of the measured models': args.threads or 'of torch',
        'images in a batch': args.batch_size,
        'widths by': args.divisor,
        'medians of': args.rounds,
    }
    listed = ', '.join(f'{key} {value}' for key, value in facts.items())
    write_text(
        f'{base}.md',
        '# Predicted against measured latency\n\n'
        f'{listed}\n\n{summary}\n\n'
        f'![Prediction against measurement]({osp.basename(base)}.png)'
        f'\n\nStructure 0 is the supernet.\n\n{markdown(rows)}\n',
    )


if __name__ == '__main__':
    main()
