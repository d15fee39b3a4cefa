"""A search in a loop of Hugging Face's accelerate.

    python examples/with_accelerate.py [--epochs 8]
    accelerate launch examples/with_accelerate.py

As `plain_pytorch.py`, on scikit-learn's digits; the same few lines on one
processor, several GPUs or in mixed precision. It needs `accelerate`.
"""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from plain_pytorch import build, load
from torch.utils.data import DataLoader, TensorDataset

from dms_mmrazor import Search


def main() -> None:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--target', type=float, default=0.5)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--out', default='subnet.yaml')
    args = parser.parse_args()
    torch.manual_seed(0)
    accelerator = Accelerator()
    training, _ = load()
    loader = DataLoader(
        TensorDataset(*training), batch_size=64, shuffle=True, drop_last=True
    )
    model = build().to(accelerator.device)
    loader = accelerator.prepare(loader)
    # Each process makes its own search, before the model is wrapped.
    search = Search(
        model,
        torch.rand(1, 1, 8, 8),
        {'macs': args.target},
        total_steps=args.epochs * len(loader),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    if accelerator.scaler is not None:
        search.use_scaler(accelerator.scaler, optimizer.optimizer)
    for epoch in range(args.epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            log = search.step()
        accelerator.print(
            f'epoch {epoch + 1}: {log["phase"]}, MACs '
            f'{float(log["macs_ratio"]):.3f} of the whole, loss {loss:.3f}'
        )
    if accelerator.is_main_process:
        subnet = search.export(args.out)
        print(subnet.structure.resources['macs'])


if __name__ == '__main__':
    main()
