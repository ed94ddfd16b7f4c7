"""Do two initialisations end in one basin? `LevelSetConnectivity` asks while your own Trainer trains.

python examples/level_set_connectivity.py --out runs/examples/level_set_connectivity
"""

import argparse

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import LevelSetConnectivity


class DigitsNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def main(out: str) -> None:
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16).float(), torch.tensor(digits.target))
    pl.seed_everything(0)
    # The one line. The twin starts from other weights and trains on the same batches; overhead=None: search to the end.
    check = LevelSetConnectivity(pairs="twin", every_n_epochs=3, overhead=None, dirpath=out)
    trainer = pl.Trainer(
        max_epochs=6,
        callbacks=[check],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsNet(), DataLoader(data, batch_size=64, shuffle=True))

    for row in check.rows:
        verdict = "a path below it was found" if row["verdict"] == "connected" else "no path below it was found"
        print(
            f"epoch {row['epoch'] + 1}: on the straight line between the twins the loss rises to "
            f"{row['linear_height']:.3f}. The level is {row['level']:.3f}: {verdict}, height {row['height']:.3f}, "
            f"{row['normalized_length']:.2f} times as long as the line."
        )
    print(f"Rows, figures and snapshots: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/examples/level_set_connectivity", help="folder of all files")
    main(parser.parse_args().out)
