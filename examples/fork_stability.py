"""From which step on does the order of the data no longer matter? `ForkStability` forks your run and measures it.

python examples/fork_stability.py --out runs/examples/fork_stability
"""

import argparse

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import ForkStability


class DigitsNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):  # logits: the callback counts wrong labels by them
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.3, momentum=0.9)


def main(out: str) -> None:
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16).float(), torch.tensor(digits.target))
    pl.seed_everything(0)
    # The one line: two children part at each of these steps and train on, each with an order of its own.
    forks = ForkStability(at_steps=[20, 60, 100], dirpath=out)
    trainer = pl.Trainer(
        max_epochs=6,
        callbacks=[forks],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsNet(), DataLoader(data, batch_size=64, shuffle=True))

    for row in forks.rows:
        print(
            f"parted at step {row['step']}: half way between the children the error is up to "
            f"{100 * row['error_barrier']:.1f} points above theirs, and the loss {row['loss_barrier']:.3f}."
        )
    print("Near 0 the run is stable: from that step on, every order of the data ends in one valley.")
    print(f"Rows, figure and kept states: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/examples/fork_stability", help="folder of all files")
    main(parser.parse_args().out)
