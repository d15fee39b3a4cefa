"""A search end to end, beside what costs less thought, on two CPU cores.

    make demo

The task: tell which handwritten digit lies somewhere on a cluttered and noisy
canvas of 12 × 12 pixels. The digits are those of scikit-learn; those of the
test set are never seen in training. A small residual network is trained, and
searched from its weights for a tenth of its MACs. At equal MACs stand beside
it the network narrowed uniformly, and the best of several random structures,
chosen on validation images. All of them are trained to convergence from
scratch, with several seeds. The table says what came out, whatever it is, and
the result card of the first search is opened.
"""

import argparse
import os
import os.path as osp
import time
import webbrowser
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import mean, stdev
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dms_mmrazor import Search, apply_structure, write_card
from dms_mmrazor.baselines.structures import (
    Request,
    random_structure,
    uniform_structure,
)
from dms_mmrazor.subnet import Structure

SIDE, BATCH = 12, 64
TARGET = 0.1
SPLITS = {'train': (0, 900, 8000), 'val': (900, 1200, 3000)}
SPLITS['test'] = (1200, 1797, 5000)
"""Digits from, to, and canvases that are made of them."""

Split = Tuple[Tensor, Tensor]
Weights = Dict[str, Tensor]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    macs: float
    params: float
    scores: List[float]
    images: int


class Job(NamedTuple):
    """A network to train."""

    name: str
    structure: Structure
    seed: int
    steps: int
    canvases: float


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape [B, C, H, W]."""
        out = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(out))).relu()


def build() -> nn.Module:
    """The whole network, with new weights."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Sequential(Block(32), Block(32), Block(32)),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Sequential(Block(64), Block(64), Block(64)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def make_split(name: str, portion: float = 1.0) -> Split:
    """Canvases [N, 1, 12, 12] and labels, the same in every run."""
    first, last, number = SPLITS[name]
    number = round(portion * number)
    digits = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    mine = order[first:last]
    images = torch.tensor(digits.images, dtype=torch.float32)[mine] / 16
    labels = torch.tensor(digits.target)[mine]
    draw = torch.Generator().manual_seed(first)
    shown = torch.randint(len(mine), (number,), generator=draw)
    canvas = torch.zeros(number, SIDE**2)
    for _ in range(2):
        other = torch.randint(len(mine), (number,), generator=draw)
        place(canvas, images[other, 2:6, 2:6], draw)
    place(canvas, images[shown], draw)
    canvas = canvas.clamp(max=1).view(number, 1, SIDE, SIDE)
    noise = torch.randn(canvas.shape, generator=draw)
    return canvas + 0.3 * noise, labels[shown]


def place(canvas: Tensor, patches: Tensor, draw: torch.Generator) -> None:
    """Add patches [N, h, h] to canvases [N, 144], anywhere."""
    number, side, _ = patches.shape
    free = SIDE - side + 1
    y, x = torch.randint(free, (2, number, 1, 1), generator=draw)
    rows, columns = torch.arange(side)[:, None] + y, torch.arange(side) + x
    index = (rows * SIDE + columns).flatten(1)
    canvas.scatter_add_(1, index, patches.flatten(1))


def batches(split: Split, steps: int) -> Iterator[Split]:
    """Shuffled batches."""
    images, labels = split
    while True:
        for part in torch.randperm(len(labels)).split(BATCH):
            if len(part) == BATCH:
                if not steps:
                    return
                steps -= 1
                yield images[part], labels[part]


def optimizer_of(model: nn.Module, steps: int, lr: float = 0.1) -> Tuple:
    """SGD whose learning rate rises to ``lr`` and falls once."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps
    )
    return optimizer, schedule


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Percent of canvases that are told right."""
    model.eval()
    right = [
        (model(images).argmax(1) == labels).float().sum()
        for images, labels in zip(split[0].split(500), split[1].split(500))
    ]
    return 100 * float(sum(right)) / len(split[1])


def train(model: nn.Module, split: Split, steps: int, seed: int) -> nn.Module:
    """A plain training from the weights that a seed gives."""
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    optimizer, schedule = optimizer_of(model, steps)
    model.train()
    for images, labels in batches(split, steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model


def find(
    weights: Weights,
    data: Dict[str, Split],
    steps: int,
    seed: int,
    folder: str,
) -> Structure:
    """A search from trained weights, recorded in the folder."""
    torch.manual_seed(100 + seed)
    model = build()
    model.load_state_dict(weights)
    example = data['train'][0][:1]
    search = Search(model, example, {'macs': TARGET}, steps, record=folder)
    optimizer, schedule = optimizer_of(search.model, steps, lr=0.025)
    for images, labels in batches(data['train'], steps):
        F.cross_entropy(search.model(images), labels).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        search.step()
        if search.iteration % max(steps // 8, 1) == 0:
            score = accuracy(search.model, data['val'])
            search.note({'accuracy': score})
            search.model.train()
            macs = float(search.log['macs_ratio'])
            print(
                f'  step {search.iteration} of {steps}, {search.log["phase"]}:'
                f' {macs:.3f} of the MACs, accuracy {score:.1f} %',
                flush=True,
            )
    return search.export(divisor=1).structure


def retrain(job: Job) -> Tuple[float, float]:
    """Train a structure from scratch; its scores in validation and test."""
    torch.set_num_threads(1)  # another one is trained beside it
    data = {name: make_split(name, job.canvases) for name in SPLITS}
    model = apply_structure(build(), job.structure)
    model = train(model, data['train'], job.steps, job.seed)
    found = accuracy(model, data['val']), accuracy(model, data['test'])
    print(f'  {job.name}, seed {job.seed}: {found[1]:.2f} %', flush=True)
    return found


def row_of(
    name: str, structures: Sequence[Structure], scores: List, images: int
) -> Row:
    """A line of the table."""
    macs, params = (
        mean(s.resources[kind]['subnet'] for s in structures)
        for kind in ('macs', 'params')
    )
    return Row(name, macs, params, [test for _, test in scores], images)


def show(rows: Sequence[Row], whole: Row) -> None:
    """The table."""
    print(
        f'\n{"":<24} {"MACs/K":>8} {"params/K":>9} {"test/%":>16} '
        f'{"images to find it":>18}'
    )
    for row in (whole, *rows):
        spread = f' ± {stdev(row.scores):.2f}' if len(row.scores) > 1 else ''
        print(
            f'{row.name:<24} {row.macs / 1e3:8.1f} {row.params / 1e3:9.2f} '
            f'{f"{mean(row.scores):.2f}{spread}":>16} {row.images:18,}'
        )


def verdict(rows: Sequence[Row]) -> None:
    """What the differences are worth."""
    searched = rows[-1]
    for row in rows[:-1]:
        number = len(row.scores)
        gap = mean(searched.scores) - mean(row.scores)
        if number < 2:
            print(f'searched - {row.name}: {gap:+.2f}, one seed says nothing.')
            continue
        error = (
            (stdev(searched.scores) ** 2 + stdev(row.scores) ** 2) / number
        ) ** 0.5
        words = 'more' if abs(gap) > 2 * error else 'not more'
        print(
            f'searched - {row.name}: {gap:+.2f} ± {error:.2f}, {words} than '
            'two standard errors.'
        )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--search-steps', type=int, default=200)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--random', type=int, default=4)
    parser.add_argument('--canvases', type=float, default=1.0)
    parser.add_argument('--out', default='work_dirs/demo')
    parser.add_argument('--no-browser', action='store_true')
    return parser.parse_args()


def compare(
    args: argparse.Namespace, found: Sequence[Structure], example: Tensor
) -> List[Row]:
    """Train what was found, and what is drawn without a search."""
    fresh = Search(build(), example, {'macs': TARGET}, 1)
    uniform = uniform_structure(fresh.mutator, fresh.targets, 1)
    drawn = [
        random_structure(fresh.mutator, Request(fresh.targets, 1, seed))
        for seed in range(args.random)
    ]
    seeds = range(args.seeds)
    spent = args.steps * BATCH
    # Two at a time, with one thread each: small networks gain little by more.
    with ProcessPoolExecutor(2, get_context('spawn')) as pool:

        def trained(name: str, structures: Sequence, first: int = 0) -> List:
            jobs = [
                Job(name, s, first + seed, args.steps, args.canvases)
                for seed, s in enumerate(structures)
            ]
            return list(pool.map(retrain, jobs))

        tried = trained('random', drawn, 1000)
        lucky = max(range(args.random), key=lambda i: tried[i][0])
        columns = (
            ('uniform', [uniform for _ in seeds], 0),
            (
                f'best of {args.random} random',
                [drawn[lucky] for _ in seeds],
                args.random * spent,
            ),
            ('searched', list(found), spent + args.search_steps * BATCH),
        )
        return [
            row_of(name, structures, trained(name, structures), images)
            for name, structures, images in columns
        ]


def main() -> None:
    """Run all of it."""
    args = parse()
    started = time.time()
    data = {name: make_split(name, args.canvases) for name in SPLITS}
    print('whole network', flush=True)
    model = train(build(), data['train'], args.steps, 0)
    score = accuracy(model, data['test'])
    print(f'  {score:.2f} %', flush=True)
    found = []
    for seed in range(args.seeds):
        print(f'search {seed}', flush=True)
        folder = osp.join(args.out, f'search{seed}')
        found.append(
            find(model.state_dict(), data, args.search_steps, seed, folder)
        )
    print('networks of equal MACs, from scratch', flush=True)
    rows = compare(args, found, data['train'][0][:1])
    full = found[0].resources
    macs, params = (full[kind]['supernet'] for kind in ('macs', 'params'))
    show(rows, Row('whole network', macs, params, [score], 0))
    verdict(rows)
    card = osp.abspath(write_card(osp.join(args.out, 'search0')))
    print(
        f'{args.seeds} seeds; {time.time() - started:.0f} s in all. '
        f'Card: {card}'
    )
    if not args.no_browser and os.environ.get('DISPLAY'):
        webbrowser.open(f'file://{card}')


if __name__ == '__main__':
    main()
