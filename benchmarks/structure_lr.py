"""Learning rates of the structure of a small vision transformer on digits.

Plain steps, lr · gradient, beside steps of AdamW, which a search does not
offer. Prints one line for each kind, with mean ± standard deviation over the
seeds:

    python benchmarks/structure_lr.py --seeds 0 1 2

With configs of searches, the squared gradient of log MACs at their start,
which is the change of log MACs by one step with lr 1 and λ_r 1:

    python benchmarks/structure_lr.py --gradients CONFIG ...
"""

import argparse
import copy
import math
import statistics
from typing import Any, Dict, List, NamedTuple, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from sklearn.datasets import load_digits
from torch import Tensor

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.apis.search_config import build_algorithm
from dms_mmrazor.core import scheduled_target
from dms_mmrazor.engine.overshoot import largest_step
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import MODELS

STEPS = [
    ('plain', 2e-3),
    ('plain', 5e-3),
    ('plain', 1e-2),
    ('AdamW', 1e-3),
    ('AdamW', 5e-3),
]
TRAINING = 1437
TARGET = 0.25
DECAY = 0.8


class Found(NamedTuple):
    """What a search has found.

    Attributes:
        accuracy (float): Of the masked network on the other 360 images.
        step (float): 99 % of the iterations change the MACs by less.
        lowest (float): MACs relative to their target, after a third of the
            iterations.
        highest (float): The same.
        ratio (float): Mean pruning ratio.
        blocks (float): Kept transformer layers of 6.
    """

    accuracy: float
    step: float
    lowest: float
    highest: float
    ratio: float
    blocks: float


def build(seed: int) -> DMSAlgorithm:
    """A search of a vision transformer with six narrow layers."""
    arch = dict(
        embed_dims=64, num_layers=6, num_heads=4, feedforward_channels=128
    )
    torch.manual_seed(seed)
    algorithm = MODELS.build(
        dict(
            type='mmrazor.DMSAlgorithm',
            architecture=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='VisionTransformer',
                    arch=arch,
                    img_size=32,
                    patch_size=8,
                ),
                neck=None,
                head=dict(
                    type='VisionTransformerClsHead',
                    num_classes=10,
                    in_channels=64,
                ),
            ),
            mutator=dict(
                type='mmrazor.DMSMutator',
                parse_cfg=dict(demo_input=(1, 3, 32, 32)),
            ),
        )
    )
    algorithm.init_weights()
    return algorithm


def search(
    algorithm: DMSAlgorithm,
    optimizers: Sequence[torch.optim.Optimizer],
    images: Tensor,
    labels: Tensor,
    iterations: int,
) -> List[Dict[str, float]]:
    """Search in batches of 32; MACs and target of every iteration."""
    full = algorithm.mutator.table.full['macs']
    log = []
    for iteration in range(iterations):
        progress = min(iteration / iterations / DECAY, 1)
        target = scheduled_target(progress, full, full * TARGET)
        if progress >= 1:
            algorithm.mutator.masks.hold_depth()
        algorithm.set_targets({'macs': target})
        chosen = torch.randint(TRAINING, (32,))
        samples = [
            DataSample().set_gt_label(label) for label in labels[chosen]
        ]
        losses = algorithm(images[chosen], samples, mode='loss')
        for optimizer in optimizers:
            optimizer.zero_grad()
        (losses['loss'] + losses['loss_macs']).backward()
        for optimizer in optimizers:
            optimizer.step()
        algorithm.finish_step()
        macs = float(losses['macs_ratio'])
        log.append(dict(macs=macs, relative=macs * full / target))
    return log


def measure(
    base: DMSAlgorithm, kind: str, lr: float, seed: int, iterations: int
) -> Found:
    """Search from the same weights and batches with one kind of steps."""
    digits = load_digits()
    images = torch.tensor(digits.images / 8 - 1).float()[:, None]
    images = torch.nn.functional.interpolate(
        images.repeat(1, 3, 1, 1), size=32
    )
    labels = torch.tensor(digits.target)
    torch.manual_seed(1000 + seed)
    algorithm = copy.deepcopy(base).train()
    algorithm.set_constraints({'macs': 1.0})
    weights = list(algorithm.architecture.parameters())
    ratios = algorithm.structural_parameters()
    optimizers = [torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05)]
    if kind == 'plain':
        optimizers.append(torch.optim.SGD(ratios, lr))
    else:
        optimizers.append(torch.optim.AdamW(ratios, lr, weight_decay=0.0))
    log = search(algorithm, optimizers, images, labels, iterations)
    macs = [entry['macs'] for entry in log]
    steps = sorted(abs(math.log(b / a)) for a, b in zip(macs, macs[1:]))
    late = [entry['relative'] for entry in log[iterations // 3 :]]
    algorithm.eval()
    with torch.no_grad():
        classifier = algorithm.architecture
        features = classifier.extract_feat(images[TRAINING:])
        scores = classifier.head(features)
    right = (scores.argmax(1) == labels[TRAINING:]).float().mean()
    return Found(
        float(right),
        steps[int(0.99 * len(steps))],
        min(late),
        max(late),
        float(ratios[0].detach().mean()),
        float(algorithm.mutator.depth_units[0].current_choice),
    )


def squared_gradient(path: str) -> float:
    """|∂ log MACs / ∂a|² of a search's config once importances are known."""
    mutator = build_algorithm(Config.fromfile(path)).mutator
    mutator.topk.num_updates.fill_(1)
    return largest_step(mutator, 'macs', lr=1.0)


def main() -> None:
    """Print what each kind of steps found, or the configs' gradients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--gradients', nargs='+', metavar='CONFIG')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--iterations', type=int, default=1000)
    args: Any = parser.parse_args()
    if args.gradients:
        for path in args.gradients:
            print(f'{path}: {squared_gradient(path):.2f}', flush=True)
        return
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    bases = {seed: build(seed) for seed in args.seeds}
    for kind, lr in STEPS:
        found = [
            measure(base, kind, lr, seed, args.iterations)
            for seed, base in bases.items()
        ]
        columns = [
            f'{name} {statistics.fmean(v):.3f} ± {statistics.pstdev(v):.3f}'
            for name, v in zip(Found._fields, zip(*found))
        ]
        print(f'{kind} lr={lr:g}: {", ".join(columns)}', flush=True)


if __name__ == '__main__':
    main()
