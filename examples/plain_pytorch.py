"""A search in a plain training loop, on real images, in some two minutes.

    python examples/plain_pytorch.py

Searches a small residual network for half of its MACs on the 1,797 handwritten
digits that scikit-learn brings, and trains what it found from scratch. It
needs torch, this package and scikit-learn; no config, no runner.
"""

import argparse
from typing import Iterator, Tuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dms_mmrazor import Search, apply_structure

TRAINED_ON = 1437
Split = Tuple[Tensor, Tensor]


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
        nn.Sequential(*(Block(32) for _ in range(3))),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Sequential(*(Block(64) for _ in range(3))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def load() -> Tuple[Split, Split]:
    """Images [N, 1, 8, 8] in [0, 1] and labels, for training and testing."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(
        len(labels), generator=torch.Generator().manual_seed(0)
    )
    first, rest = order[:TRAINED_ON], order[TRAINED_ON:]
    return (images[first], labels[first]), (images[rest], labels[rest])


def batches(split: Split, epochs: int, size: int = 64) -> Iterator[Split]:
    """Shuffled batches."""
    images, labels = split
    for _ in range(epochs):
        for part in torch.randperm(len(labels)).split(size):
            if len(part) == size:
                yield images[part], labels[part]


def optimizer_of(
    model: nn.Module, steps: int
) -> Tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.CosineAnnealingLR]:
    """SGD whose learning rate falls on a cosine."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return optimizer, schedule


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Share of images that are told right."""
    model.eval()
    return float((model(split[0]).argmax(1) == split[1]).float().mean())


def search(split: Split, target: float, epochs: int, path: str) -> None:
    """Find a structure and write it."""
    steps = epochs * (TRAINED_ON // 64)
    found = Search(
        build(), torch.rand(1, 1, 8, 8), {'macs': target}, total_steps=steps
    )
    print(found.report())
    optimizer, schedule = optimizer_of(found.model, steps)
    for index, (images, labels) in enumerate(batches(split, epochs)):
        loss = F.cross_entropy(found.model(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        log = found.step()
        if index % 50 == 0 or index == steps - 1:
            print(
                f'step {index + 1}: {log["phase"]}, MACs '
                f'{float(log["macs_ratio"]):.3f} of the whole (target '
                f'{float(log["macs_target"]):.3f}), loss {loss.item():.3f}'
            )
    subnet = found.export(path)
    print(subnet.structure.resources['macs'], subnet.fit)


def train(model: nn.Module, split: Split, epochs: int) -> nn.Module:
    """A plain training."""
    optimizer, schedule = optimizer_of(model, epochs * (TRAINED_ON // 64))
    model.train()
    for images, labels in batches(split, epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model


def main() -> None:
    """Search, then train the found network and the whole one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--target', type=float, default=0.5)
    parser.add_argument('--search-epochs', type=int, default=8)
    parser.add_argument('--epochs', type=int, default=12)
    parser.add_argument('--out', default='subnet.yaml')
    args = parser.parse_args()
    training, testing = load()
    torch.manual_seed(0)
    search(training, args.target, args.search_epochs, args.out)
    networks = {
        'whole': build(),
        'searched': apply_structure(build(), args.out),
    }
    for name, model in networks.items():
        train(model, training, args.epochs)
        print(f'{name}: {accuracy(model, testing):.1%} of the test digits')


if __name__ == '__main__':
    main()
