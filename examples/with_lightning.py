"""A search in Lightning's Trainer.

    python examples/with_lightning.py [--epochs 8]

As `plain_pytorch.py`, on scikit-learn's digits. It needs `lightning`.
"""

import argparse
from typing import Any, Dict, Tuple

import lightning
import torch
import torch.nn.functional as F
from plain_pytorch import build, load
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dms_mmrazor import Search


class SearchedModule(lightning.LightningModule):
    """A supernet whose structure moves after each step of the optimizer.

    Args:
        target (float): Of the MACs, relative to the whole network.
        total_steps (int): Of the training.
    """

    def __init__(self, target: float, total_steps: int) -> None:
        super().__init__()
        self.model = build()
        self.search = Search(
            self.model,
            torch.rand(1, 1, 8, 8),
            {'macs': target},
            total_steps=total_steps,
        )

    def training_step(self, batch: Tuple[Tensor, Tensor], _: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the structure: the optimizer has stepped."""
        log = self.search.step()
        self.log('macs_ratio', log['macs_ratio'], prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the weights alone."""
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def on_save_checkpoint(self, checkpoint: Dict[str, Any]) -> None:
        """Save what the search needs to go on."""
        checkpoint['search'] = self.search.state_dict()

    def on_load_checkpoint(self, checkpoint: Dict[str, Any]) -> None:
        """Go on with the search."""
        self.search.load_state_dict(checkpoint['search'])


def main() -> None:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--target', type=float, default=0.5)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--out', default='subnet.yaml')
    args = parser.parse_args()
    lightning.seed_everything(0)
    training, _ = load()
    loader = DataLoader(
        TensorDataset(*training), batch_size=64, shuffle=True, drop_last=True
    )
    module = SearchedModule(args.target, args.epochs * len(loader))
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator='auto',
        devices=1,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader)
    subnet = module.search.export(args.out)
    print(subnet.structure.resources['macs'])


if __name__ == '__main__':
    main()
