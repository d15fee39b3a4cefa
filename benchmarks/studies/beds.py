"""Beds of the studies: small trainings that can tell networks apart.

A bed is a network, CIFAR-10 at 16×16 pixels kept in memory, and a training
of some minutes on one core that ends with a flat loss. Choices are made on
5,000 images split off the training set; the test set is for what is
reported. One training of a network narrowed uniformly, without a search:

    DMS_CIFAR10=cifar10.tar.xz python benchmarks/studies/beds.py residual \
        --macs 0.25 --seed 0

``--macs 1`` trains the whole network. How far apart two sizes are in
standard errors of their difference:

    python benchmarks/studies/beds.py residual --calibrate --seeds 0 1 2
"""

import argparse
import io
import json
import math
import os
import os.path as osp
import statistics
import tarfile
import time
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import networks
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 16
BATCH = 128
CACHE = osp.join(osp.expanduser('~'), '.cache', 'dms_mmrazor')


class Split(NamedTuple):
    """Images uint8 [N, 3, H, W] and labels int64 [N]."""

    images: Tensor
    labels: Tensor


class Bed(NamedTuple):
    """A network and its training.

    Attributes:
        build (Callable): Makes the whole network with new weights.
        epochs (float): Of the training split.
        lr (float): Highest learning rate, after a warm-up of 5 %; from
            there on a cosine to 0.
        optimizer (str): 'sgd' (Nesterov, momentum 0.9) or 'adamw'.
        weight_decay (float): Of weights with two dimensions or more.
        shift (int): Pixels that an image is moved by at most.
        target (float): MACs of the networks to compare, relative to the
            whole one's.
    """

    build: Callable[[], nn.Module]
    epochs: float
    lr: float
    optimizer: str = 'sgd'
    weight_decay: float = 5e-4
    shift: int = 2
    target: float = 0.25


BEDS: Dict[str, Bed] = {
    'residual': Bed(networks.residual, 8, 0.2),
    'plain': Bed(networks.plain, 8, 0.2),
    'mobile': Bed(networks.mobile, 8, 0.2, weight_decay=2e-4),
    'transformer': Bed(networks.Transformer, 12, 2e-3, 'adamw', 0.05),
}


class Trained(NamedTuple):
    """What a training has come to.

    Attributes:
        losses (list[float]): Mean training loss of each tenth.
        images (int): Images seen.
        seconds (float): Processor time of the training alone.
    """

    losses: List[float]
    images: int
    seconds: float


def use_one_thread() -> None:
    """What a process of a study computes with: others run beside it."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormals make old weights slow


def cache_folder() -> str:
    """Outside of the repository: ``DMS_CACHE``, or one in the user's."""
    folder = os.environ.get('DMS_CACHE', CACHE)
    os.makedirs(folder, exist_ok=True)
    return folder


def load_data(
    source: Optional[str] = None, size: int = SIZE
) -> Dict[str, Split]:
    """CIFAR-10, decoded once and kept outside of the repository.

    Args:
        source (str, optional): The archive ``cifar10_jpeg.tar.xz`` with
            ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``. Defaults to
            None, what the environment variable ``DMS_CIFAR10`` names.
        size (int): Side in pixels, averaged over areas. Defaults to 16.

    Returns:
        dict[str, Split]: 'train' 45,000, 'val' 5,000 (every tenth image of
        the training set), 'whole' both, 'test' 10,000 images.
    """
    path = osp.join(cache_folder(), f'cifar10_{size}.npz')
    if not osp.exists(path):
        source = source or os.environ.get('DMS_CIFAR10')
        if not source:
            raise SystemExit('name the archive of CIFAR-10: DMS_CIFAR10=…')
        _decode(source, path, size)
    stored = np.load(path)
    splits = {
        name: Split(
            torch.from_numpy(stored[f'{name}_images']),
            torch.from_numpy(stored[f'{name}_labels']),
        )
        for name in ('train', 'test')
    }
    whole = splits['train']
    held_out = torch.arange(len(whole.labels)) % 10 == 9
    return {
        'train': Split(whole.images[~held_out], whole.labels[~held_out]),
        'val': Split(whole.images[held_out], whole.labels[held_out]),
        'whole': whole,
        'test': splits['test'],
    }


def _decode(source: str, path: str, size: int) -> None:
    """Write all images of an archive as one file of arrays."""
    from PIL import Image

    found: Dict[str, Dict[str, List[np.ndarray]]] = {}
    with tarfile.open(source) as archive:
        for member in archive:
            if not member.name.endswith('.jpg'):
                continue
            split, folder = member.name.split('/')[-3:-1]
            image = Image.open(io.BytesIO(archive.extractfile(member).read()))
            pixels = np.asarray(image.convert('RGB')).transpose(2, 0, 1)
            found.setdefault(split, {}).setdefault(folder, []).append(pixels)
    arrays = {}
    for split, classes in found.items():
        images = torch.from_numpy(
            np.concatenate([np.stack(classes[c]) for c in sorted(classes)])
        )
        small = F.interpolate(images.float(), size=(size, size), mode='area')
        arrays[f'{split}_images'] = small.round().byte().numpy()
        arrays[f'{split}_labels'] = np.concatenate(
            [
                np.full(len(classes[c]), index, dtype=np.int64)
                for index, c in enumerate(sorted(classes))
            ]
        )
    temporary = f'{path}.{os.getpid()}.npz'
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def as_input(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] as the networks take them, about unit variance."""
    # Not channels-last, which is faster for some widths: with others, the
    # backward pass of a strided 1×1 convolution corrupts memory (torch 2.11
    # on a CPU, 7 to 14 channels).
    return (images.float() - 121.0) / 60.0


def augment(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and move all, uint8 [B, 3, H, W]."""
    number, _, height, width = images.shape
    padded = F.pad(images, [shift] * 4)
    moves = torch.randint(2 * shift + 1, (2, number, 1), generator=generator)
    mirrored = torch.rand((number, 1), generator=generator) < 0.5
    columns = torch.arange(width).expand(number, -1)
    columns = torch.where(mirrored, columns.flip(1), columns) + moves[0]
    rows = torch.arange(height).expand(number, -1) + moves[1]
    which = torch.arange(number)[:, None, None, None]
    channel = torch.arange(3)[None, :, None, None]
    return padded[
        which, channel, rows[:, None, :, None], columns[:, None, None]
    ]


def batches(
    split: Split, iterations: int, seed: int, shift: int, batch: int = BATCH
) -> Iterator[Split]:
    """Augmented inputs [B, 3, H, W] and labels [B], epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.zeros(0, dtype=torch.long)
    for _ in range(iterations):
        if len(order) < batch:
            fresh = torch.randperm(len(split.labels), generator=generator)
            order = torch.cat([order, fresh])
        index, order = order[:batch], order[batch:]
        images = augment(split.images[index], shift, generator)
        yield Split(as_input(images), split.labels[index])


def iterations_of(bed: Bed, split: Split, batch: int = BATCH) -> int:
    """Iterations of a bed's training."""
    return round(bed.epochs * len(split.labels) / batch)


def make_optimizer(model: nn.Module, bed: Bed) -> torch.optim.Optimizer:
    """The bed's optimizer; norms and biases do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: List[Dict[str, Any]] = [
        {
            'params': [p for p in trained if p.dim() > 1],
            'weight_decay': bed.weight_decay,
        },
        {'params': [p for p in trained if p.dim() <= 1], 'weight_decay': 0.0},
    ]
    if bed.optimizer == 'sgd':
        return torch.optim.SGD(groups, bed.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, bed.lr)


def set_lr(
    optimizer: torch.optim.Optimizer, bed: Bed, progress: float
) -> None:
    """Warm-up over 5 % of the training, then a cosine to 0."""
    factor = min(progress / 0.05, (1 + math.cos(math.pi * progress)) / 2)
    for group in optimizer.param_groups:
        group['lr'] = bed.lr * factor


def train(
    model: nn.Module, bed: Bed, split: Split, seed: int, batch: int = BATCH
) -> Trained:
    """Train a network as its bed says.

    Args:
        model (nn.Module): With new weights; trained in place.
        bed (Bed): Its training.
        split (Split): What it learns.
        seed (int): Of order and augmentation.
        batch (int): Defaults to 128.
    """
    started = time.process_time()
    optimizer = make_optimizer(model, bed)
    iterations = iterations_of(bed, split, batch)
    losses: List[List[float]] = [[] for _ in range(10)]
    model.train()
    data = batches(split, iterations, seed, bed.shift, batch)
    for iteration, (images, labels) in enumerate(data):
        set_lr(optimizer, bed, (iteration + 1) / iterations)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[10 * iteration // iterations].append(float(loss.detach()))
    means = [round(statistics.fmean(part), 4) for part in losses if part]
    seconds = round(time.process_time() - started, 1)
    return Trained(means, iterations * batch, seconds)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Top-1 in percent."""
    model.eval()
    right = 0
    for start in range(0, len(split.labels), 500):
        images = as_input(split.images[start : start + 500])
        labels = split.labels[start : start + 500]
        right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(split.labels)


@torch.no_grad()
def mean_loss(model: nn.Module, split: Split) -> float:
    """Cross-entropy: less noisy than top-1."""
    model.eval()
    total = 0.0
    for start in range(0, len(split.labels), 500):
        images = as_input(split.images[start : start + 500])
        labels = split.labels[start : start + 500]
        loss = F.cross_entropy(model(images), labels, reduction='sum')
        total += float(loss)
    return total / len(split.labels)


def new_network(bed: Bed, seed: int) -> nn.Module:
    """The whole network with the weights of a seed."""
    torch.manual_seed(seed)
    return bed.build()


def scaled(bed: Bed, scale: float) -> Bed:
    """A bed whose whole network is so many times wider."""
    return bed._replace(build=partial(bed.build, scale=scale))


def prepare(
    bed: Bed, seed: int, load: Optional[str] = None, **settings: Any
) -> Any:
    """The whole network as a supernet, and its DMSMutator.

    Args:
        bed (Bed): The bed.
        seed (int): Of the weights.
        load (str, optional): File of trained weights. Defaults to None.
        **settings (Any): Further arguments of DMSMutator.

    Returns:
        tuple[nn.Module, DMSMutator]: The mutator is prepared.
    """
    import dms_mmrazor.plugin  # noqa: F401  (first of all imports)
    from dms_mmrazor.models.mutators import DMSMutator

    supernet = new_network(bed, seed)
    if load:
        supernet.load_state_dict(torch.load(load))
    settings.setdefault('parse_cfg', dict(demo_input=(1, 3, SIZE, SIZE)))
    mutator = DMSMutator(**settings)
    mutator.prepare_from_supernet(supernet)
    return supernet, mutator


def subnet(bed: Bed, structure: Any, seed: int) -> nn.Module:
    """A structure with new weights: a network of its own, then cut."""
    from dms_mmrazor.subnet import prune

    return prune(new_network(bed, seed), structure)


def uniform(bed: Bed, macs: float, divisor: int = 1) -> Any:
    """Structure of the network narrowed by one ratio to its share of MACs."""
    from dms_mmrazor.search.export import uniform_structure

    _, mutator = prepare(bed, 0)
    targets = {'macs': macs * mutator.table.full['macs']}
    return uniform_structure(mutator, targets, divisor)


def train_uniform(
    name: str, macs: float, seed: int, data: Dict[str, Split]
) -> Dict[str, Any]:
    """Narrow uniformly, train from scratch, test."""
    bed = BEDS[name]
    if macs < 1:
        model = subnet(bed, uniform(bed, macs), seed)
    else:
        model = new_network(bed, seed)
    trained = train(model, bed, data['train'], seed)
    scores = {split: accuracy(model, data[split]) for split in ('val', 'test')}
    settings = dict(bed=name, macs=macs, seed=seed, epochs=bed.epochs)
    return {**settings, **scores, **trained._asdict()}


def main() -> None:
    """Train one network, or see how well a bed tells two sizes apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bed', choices=list(BEDS))
    parser.add_argument('--macs', type=float, help='relative to the whole')
    parser.add_argument('--calibrate', action='store_true')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # they make old weights slow
    data = load_data()
    target = BEDS[args.bed].target
    if not args.calibrate:
        macs = target if args.macs is None else args.macs
        print(json.dumps(train_uniform(args.bed, macs, args.seed, data)))
        return
    found: Dict[float, List[float]] = {}
    for seed in args.seeds:
        for factor in (0.8, 1.2):
            row = train_uniform(args.bed, factor * target, seed, data)
            print(json.dumps(row), flush=True)
            found.setdefault(factor, []).append(row['test'])
    means = [statistics.fmean(scores) for scores in found.values()]
    errors = [
        statistics.stdev(scores) / math.sqrt(len(scores))
        for scores in found.values()
    ]
    difference = means[1] - means[0]
    error = math.hypot(*errors)
    print(f'{difference:.2f} ± {error:.2f}: {difference / error:.1f} errors')


if __name__ == '__main__':
    main()
