"""In how many components of the level sets do the points of a run lie? `MergeTree` joins them when training ends.

python examples/merge_tree.py --out runs/examples/merge_tree
"""

import argparse

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import MergeTree


class SineNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self.layers(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)


def train(seed: int, *callbacks: pl.Callback) -> pl.Trainer:
    pl.seed_everything(seed)
    x = torch.linspace(-2, 2, 256)[:, None]
    data = TensorDataset(x, torch.sin(3 * x))
    trainer = pl.Trainer(
        max_epochs=16,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SineNet(), DataLoader(data, batch_size=32, shuffle=True))
    return trainer


def main(out: str) -> None:
    other = f"{out}/other.ckpt"
    train(1).save_checkpoint(other)
    # The one line: a snapshot every 4 epochs, and at the end the tree of all of them and of the other run's weights.
    tree = MergeTree(every_n_epochs=4, references=[other], dirpath=out)
    train(0, tree)

    for point, loss in zip(tree.tree.names, tree.tree.losses, strict=True):
        print(f"{point}: loss {loss:.4f}")
    for level in tree.tree.levels():
        print(f"level {level:.4f}: {tree.tree.num_components(level)} component(s) of the points below it")
    print(f"Tree, searches and snapshots: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/examples/merge_tree", help="folder of all files")
    main(parser.parse_args().out)
