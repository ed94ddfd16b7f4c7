"""Keep the weights at the moments when the loss first passes given values: `SnapshotRecorder`.

python examples/snapshot_recorder.py --out runs/examples/snapshot_recorder
"""

import argparse

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import SnapshotRecorder


class LineNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.layer(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.02)


def main(out: str) -> None:
    pl.seed_everything(0)
    x = torch.randn(512, 5)
    data = TensorDataset(x, x @ torch.tensor([[1.0], [-2.0], [3.0], [0.0], [1.0]]))
    # The one line: a snapshot when the logged metric is first below each of these.
    recorder = SnapshotRecorder(out, monitor="train_loss", thresholds=[10.0, 1.0, 0.1, 0.01])
    trainer = pl.Trainer(
        max_epochs=8,
        callbacks=[recorder],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(LineNet(), DataLoader(data, batch_size=32, shuffle=True))

    for snapshot in recorder.snapshots:
        weight = snapshot.load()["layer.weight"]  # checked against its hash as it is read
        print(f"step {snapshot.step}: loss {snapshot.loss:.4f}, weights {[round(w, 2) for w in weight[0].tolist()]}")
    print(f"Any of them can be a partner: LevelSetConnectivity(pairs='reference', reference='{snapshot.path}')")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/examples/snapshot_recorder", help="folder of all files")
    main(parser.parse_args().out)
