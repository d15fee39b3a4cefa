"""Rules of the structure step on a problem whose answer is known.

Three streams with four inner widths each, as a residual network has them: a
layer costs the product of two widths, so that a stream has ten times the share
of the resource that an inner width has. Every width has a task loss that
falls with a power of it; the gradient that a rule sees has noise of the size
of the usual gradient. The loss of what a rule ends with, above that of the
best structure of the same resource, says what the rule is worth. Some seconds
a rule; no data, no training:

    python benchmarks/studies/synthetic.py
"""

import argparse
import json
import math
import os
import os.path as osp
import statistics
from typing import Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from dms_mmrazor.core import (
    Constraint,
    Dim,
    ResourceModel,
    StructureStep,
    Term,
    scheduled_target,
)

STREAMS, INNER = 3, 4
TARGET = 0.25
DECAY = 0.8
UPPER = 1 - 1 / 64
FACTORS = (1 / 3, 1.0, 3.0)
RULES: Dict[str, Dict[str, object]] = {
    'price': {'rule': 'price'},
    'price, no average': {'rule': 'price', 'average': 0.0},
    'price, average 0.97': {'rule': 'price', 'average': 0.97},
    'adam': {'rule': 'adam'},
    'plain': {'rule': 'plain'},
}
RESULT = osp.join(
    osp.dirname(osp.abspath(__file__)), 'results', 'synthetic.json'
)


class Problem(NamedTuple):
    """One network, drawn at random.

    Attributes:
        model (ResourceModel): Of all widths, as portions kept.
        worth (Tensor): Task loss of each width at full size, shape [U].
        power (Tensor): Task losses are ``worth · kept^-power``, shape [U].
    """

    model: ResourceModel
    worth: Tensor
    power: Tensor

    def loss(self, ratio: Tensor) -> Tensor:
        """Task loss of pruning ratios [U]."""
        return (self.worth * (1 - ratio) ** -self.power).sum()

    def resource(self, ratio: Tensor) -> Tensor:
        """Relative to the whole network."""
        none = ratio.new_zeros(0)
        return self.model(1 - ratio, none) / self.model(ratio * 0 + 1, none)


def draw(seed: int) -> Problem:
    """The problem of a seed: streams are worth more than inner widths."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(number: int, low: float, high: float) -> Tensor:
        part = torch.rand(number, generator=generator, dtype=torch.float64)
        return low * (high / low) ** part

    terms = []
    costs = uniform(STREAMS * INNER, 0.5, 2.0).tolist()
    for index, cost in enumerate(costs):
        stream, inner = index // INNER, STREAMS + index
        dims = (Dim(units=((stream, 1.0),)), Dim(units=((inner, 1.0),)))
        terms.append(Term(str(index), cost, dims))
    number = STREAMS + len(costs)
    worth = torch.cat(
        [uniform(STREAMS, 0.1, 1.0), uniform(len(costs), 0.02, 0.5)]
    )
    return Problem(
        ResourceModel(terms, number, 0), worth, uniform(number, 0.3, 1.0)
    )


def gradients(problem: Problem, ratio: Tensor) -> Tuple[Tensor, Tensor]:
    """Of the task loss and of the logarithm of the resource, each [U]."""
    leaf = ratio.clone().requires_grad_()
    (task,) = torch.autograd.grad(problem.loss(leaf), leaf)
    (share,) = torch.autograd.grad(problem.resource(leaf).log(), leaf)
    return task, share


def search(
    problem: Problem, step: StructureStep, steps: int, noise: float, seed: int
) -> Tensor:
    """Ratios [U] after a search of so many steps."""
    generator = torch.Generator().manual_seed(seed)
    ratio = torch.zeros_like(problem.worth)
    limits = torch.zeros_like(ratio), torch.full_like(ratio, UPPER)
    for index in range(steps):
        progress = min((index + 1) / steps / DECAY, 1.0)
        target = scheduled_target(progress, 1.0, TARGET)
        task, share = gradients(problem, ratio)
        random = torch.randn(
            task.shape, generator=generator, dtype=torch.float64
        )
        task = task + noise * task.abs().mean() * random
        excess = (problem.resource(ratio) / target).log()
        constraint = Constraint(share[None], excess[None], torch.ones(1))
        step.move_(ratio, task, constraint, *limits)
    return ratio


def at_target(problem: Problem, ratio: Tensor) -> Tensor:
    """One common shift to the target: the exact end of a search."""
    low, high = -1.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if problem.resource((ratio + middle).clamp(0, UPPER)) > TARGET:
            low = middle
        else:
            high = middle
    return (ratio + high).clamp(0, UPPER)


def best(problem: Problem, steps: int) -> float:
    """Loss of the best structure: prices without noise, for long."""
    step = StructureStep(len(problem.worth), 'price', average=0.0).double()
    step.set_length(steps)
    ratio = search(problem, step, steps, 0.0, 0)
    return float(problem.loss(at_target(problem, ratio)))


def run(
    settings: Dict[str, object], factor: float, steps: int, args
) -> Dict[str, List[float]]:
    """Excess losses, and how far from the target, of all problems."""
    losses, misses = [], []
    for seed in range(args.seeds):
        problem = draw(seed)
        step = StructureStep(len(problem.worth), **settings).double()
        step.set_length(steps)
        step.lr *= factor
        ratio = search(problem, step, steps, args.noise, 1000 + seed)
        misses.append(float(problem.resource(ratio)) / TARGET - 1)
        reached = problem.loss(at_target(problem, ratio))
        losses.append(float(reached) / args.best[seed] - 1)
    return {'loss': losses, 'miss': misses}


def cell(values: Sequence[float]) -> str:
    """Mean and standard error in percent."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f'{statistics.fmean(values):.1%} ± {error:.1%}'


def main() -> None:
    """Print the table and write every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=4)
    parser.add_argument('--steps', type=int, nargs='+', default=[40, 350])
    parser.add_argument('--noise', type=float, default=1.0)
    parser.add_argument(
        '--best', type=int, default=1500, help='steps to the best structure'
    )
    parser.add_argument('--rules', nargs='+', default=list(RULES))
    parser.add_argument('--out', default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    problems = [draw(seed) for seed in range(args.seeds)]
    args.best = [best(problem, args.best) for problem in problems]
    narrow = [
        float(p.loss(at_target(p, torch.zeros_like(p.worth)))) / b - 1
        for p, b in zip(problems, args.best)
    ]
    heads = ['rule', 'steps', *(f'lr × {f:.2g}' for f in FACTORS), 'missed by']
    print('| ' + ' | '.join(heads) + ' |')
    print('|' + ' --- |' * len(heads))
    print(f'| uniform | – | {cell(narrow)} |' + ' – |' * len(FACTORS))
    rows = [{'rule': 'uniform', 'loss': narrow}]
    for steps in args.steps:
        for name in args.rules:
            found = [run(RULES[name], f, steps, args) for f in FACTORS]
            worst = max(abs(m) for row in found for m in row['miss'])
            cells = [name, str(steps), *(cell(r['loss']) for r in found)]
            print('| ' + ' | '.join([*cells, f'{worst:.1%}']) + ' |')
            rows += [
                {'rule': name, 'steps': steps, 'factor': f, **r}
                for f, r in zip(FACTORS, found)
            ]
    os.makedirs(osp.dirname(args.out), exist_ok=True)
    with open(args.out, 'w', encoding='utf-8') as file:
        settings = {'seeds': args.seeds, 'noise': args.noise}
        json.dump({**settings, 'rows': rows}, file, indent=1)
        file.write('\n')


if __name__ == '__main__':
    main()
