"""Cost of a search step against a plain training step of the same model.

Both run in one process, in turn, so that a drifting machine hits both. Time
is the median over rounds; bytes are what autograd saves for the backward
pass, each storage once, without the parameters themselves.

    python benchmarks/search_step.py --models resnet50 mobilenet_v2
"""

import argparse
import json
import platform
import statistics
import time
from copy import deepcopy
from typing import Any, Dict, List, NamedTuple

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.models.algorithms import DMSAlgorithm


class Case(NamedTuple):
    """A model with the input of its row.

    Attributes:
        backbone (dict): mmpretrain's config of the backbone.
        channels (int): Channels of its output.
        batch (int): Images per step.
        size (int): Height and width.
    """

    backbone: Dict[str, Any]
    channels: int
    batch: int
    size: int


CASES = {
    'resnet50': Case(dict(type='ResNet', depth=50), 2048, 8, 224),
    'mobilenet_v2': Case(dict(type='MobileNetV2'), 1280, 16, 224),
    'efficientnet_b0': Case(
        dict(type='EfficientNet', arch='b0'), 1280, 8, 224
    ),
}


def build(case: Case) -> nn.Module:
    """The plain classifier of a case."""
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(case.backbone, _scope_='mmpretrain'),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=1000,
            in_channels=case.channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def make_search(plain: nn.Module, case: Case) -> DMSAlgorithm:
    """A search of the same weights, widths and depths, half of the MACs."""
    size = (1, 3, case.size, case.size)
    algorithm = DMSAlgorithm(
        deepcopy(plain),
        mutator=dict(type='DMSMutator', parse_cfg=dict(demo_input=size)),
    )
    algorithm.set_constraints({'macs': 1.0})
    algorithm.set_targets({'macs': algorithm.mutator.table.full['macs'] / 2})
    return algorithm.train()


def make_batch(case: Case) -> Dict[str, Any]:
    """Random images with labels."""
    from mmpretrain.structures import DataSample

    images = torch.randn(case.batch, 3, case.size, case.size)
    labels = torch.randint(1000, (case.batch,))
    samples = [DataSample().set_gt_label(label) for label in labels]
    return dict(inputs=images, data_samples=samples)


def step(model: nn.Module, data: Dict[str, Any], optimizer: Any) -> None:
    """One training step, the search's bookkeeping included."""
    losses = model(**data, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    optimizer.step()
    optimizer.zero_grad()
    if isinstance(model, DMSAlgorithm):
        model.finish_step()


def saved_bytes(model: nn.Module, data: Dict[str, Any]) -> int:
    """Bytes that autograd keeps between forward and backward."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: Dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        losses = model(**data, mode='loss')
        total = sum(v for k, v in losses.items() if 'loss' in k)
    del total
    return sum(storages.values())


def measure(name: str, rounds: int) -> Dict[str, Any]:
    """One row of the table."""
    case = CASES[name]
    torch.manual_seed(0)
    plain = build(case)
    models = {'plain': plain, 'search': make_search(plain, case)}
    data = make_batch(case)
    optimizers = {
        key: torch.optim.SGD(m.parameters(), lr=1e-3)
        for key, m in models.items()
    }
    times: Dict[str, List[float]] = {key: [] for key in models}
    for index in range(rounds + 1):
        for key, model in models.items():
            started = time.perf_counter()
            step(model, data, optimizers[key])
            if index:  # the first round warms up
                times[key].append(time.perf_counter() - started)
    ratios = [s / p for s, p in zip(times['search'], times['plain'])]
    saved = {key: saved_bytes(model, data) for key, model in models.items()}
    weights = sum(p.numel() * 4 for p in plain.parameters())
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        'model': name,
        'input': f'{case.batch}x{case.size}^2',
        'plain_s': round(statistics.median(times['plain']), 3),
        'time_ratio': round(statistics.median(ratios), 3),
        'time_quartiles': [round(quartiles[0], 3), round(quartiles[2], 3)],
        'bytes_ratio': round(saved['search'] / saved['plain'], 3),
        'extra_bytes_per_weight_byte': round(
            (saved['search'] - saved['plain']) / weights, 3
        ),
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', nargs='+', default=list(CASES))
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--out', help='JSON file to write')
    args = parser.parse_args()
    rows = [measure(name, args.rounds) for name in args.models]
    for row in rows:
        print(row)
    environment = {
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'machine': platform.processor() or platform.machine(),
    }
    print(environment)
    if args.out:
        with open(args.out, 'w') as file:
            json.dump(
                {'environment': environment, 'rows': rows}, file, indent=1
            )


if __name__ == '__main__':
    main()
