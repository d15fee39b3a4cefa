"""Draw the pictures of the documentation from what was measured.

    python docs/pictures/draw.py

Writes PNG files beside itself.
"""

import json
import math
import os.path as osp
from typing import Any, Dict, List

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dms_mmrazor.core import differentiable_topk
from dms_mmrazor.core.durations import phase_lengths
from dms_mmrazor.core.milestones import plan_stops

HERE = osp.dirname(osp.abspath(__file__))
RESULTS = osp.join(HERE, '../../benchmarks/studies/results')
BLUE, ORANGE, GRAY = '#2b6c99', '#c2571a', '#8a949c'


SHOWN = (
    ('uniform', 'uniform', GRAY),
    ('l1', 'L1, cut globally', ORANGE),
    ('dms-pretrained', 'DMS', BLUE),
)
"""Methods of the picture: name in the results, label, color."""

BEDS = {
    'plain': '8 plain convolutions',
    'residual': '12 residual blocks',
    'mobile': '10 inverted residuals',
    'transformer': 'transformer, 6 layers',
}


def new_figure(width: float, height: float) -> Figure:
    """An empty white picture, in inches."""
    figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Any) -> None:
    """Take the frame away."""
    for name in ('top', 'right'):
        axes.spines[name].set_visible(False)
    axes.tick_params(labelsize=9)


TARGETS = {'': 'a quarter of the MACs', '-eighth': 'an eighth of the MACs'}
"""By the end of the name of their results."""


def scores(bed: str, target: str) -> Dict[str, List[float]]:
    """Top-1 on the test set of every retraining of a bed, by method."""
    path = osp.join(RESULTS, f'trained_first-{bed}{target}.json')
    with open(path, encoding='utf-8') as file:
        runs = json.load(file)
    found: Dict[str, List[float]] = {name: [] for name, _, _ in SHOWN}
    for run in runs:
        method = run['settings'].get('method')
        if run['kind'] == 'trained' and method in found:
            found[method].append(run['result']['score'])
    return found


def draw_retrained(path: str) -> None:
    """A dot for each retraining: uniform, L1, and what searches found."""
    figure = new_figure(10, 3.6)
    panels = [(b, t) for b in BEDS for t in TARGETS]
    for index, (bed, target) in enumerate(panels):
        column, row = divmod(index, len(TARGETS))
        left, bottom = 0.12 + 0.222 * column, 0.62 - 0.49 * row
        axes = figure.add_axes([left, bottom, 0.2, 0.27])
        bare(axes)
        name = '' if row else f'{BEDS[bed]}\n'
        axes.set_title(name + TARGETS[target], fontsize=10, loc='left')
        found = scores(bed, target)
        for line, (method, _, color) in enumerate(SHOWN):
            values = found[method]
            axes.plot(values, [line] * len(values), 'o', color=color)
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [line - 0.3, line + 0.3], color=color)
        axes.set_ylim(-0.6, len(SHOWN) - 0.4)
        labels = ['' if column else label for _, label, _ in SHOWN]
        axes.set_yticks(range(len(SHOWN)), labels)
        if row:
            axes.set_xlabel('top-1 / %', fontsize=9)
    figure.savefig(path, dpi=110)


def draw_topk(path: str) -> None:
    """Soft masks of Eq. 3 for three pruning ratios."""
    figure = new_figure(5.2, 2.6)
    axes = figure.add_axes([0.12, 0.2, 0.84, 0.72])
    bare(axes)
    importance = torch.arange(32, 0, -1, dtype=torch.float32)
    for ratio, color in ((0.25, BLUE), (0.5, ORANGE), (0.75, GRAY)):
        mask = differentiable_topk(importance, torch.tensor(ratio))
        axes.plot(mask, color=color, marker='.', label=f'ratio {ratio}')
    axes.set_xlabel('channels, the most important one first', fontsize=9)
    axes.set_ylabel('mask', fontsize=9)
    axes.legend(fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def draw_schedule(path: str) -> None:
    """The target of a search, with and without milestones."""
    figure = new_figure(5.2, 2.6)
    axes = figure.add_axes([0.12, 0.2, 0.84, 0.72])
    bare(axes)
    lengths = phase_lengths(0.2, 0.6, 1000)
    ends = [1.0, 0.75, 0.5, 0.25]
    falls = [math.log(a / b) for a, b in zip(ends, ends[1:])]
    line = plan_stops(lengths, falls, 50)
    x = range(lengths.total)
    plain = [0.25 ** lengths.at(i).progress for i in x]
    stops = []
    for i in x:
        leg, progress = line.leg(i)
        stops.append(ends[leg] * (ends[leg + 1] / ends[leg]) ** progress)
    axes.plot(x, plain, color=GRAY, label='one budget')
    axes.plot(x, stops, color=BLUE, label='milestones 75 %, 50 %')
    for start, name in ((0, 'warm-up'), (200, 'decay'), (800, 'refine')):
        axes.axvline(start, color=GRAY, linewidth=0.5)
        axes.text(start + 10, 1.02, name, fontsize=9, color=GRAY)
    axes.set_xlabel('iterations', fontsize=9)
    axes.set_ylabel('target / supernet', fontsize=9)
    axes.legend(fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw all of them."""
    draw_retrained(osp.join(HERE, 'retrained.png'))
    draw_topk(osp.join(HERE, 'topk.png'))
    draw_schedule(osp.join(HERE, 'schedule.png'))


if __name__ == '__main__':
    main()
