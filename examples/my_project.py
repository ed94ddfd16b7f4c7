"""Stands for your own project: a LightningModule, a LightningDataModule, and a run of your own Trainer.

The examples of commands name these classes in a recipe, as `class_path: my_project.DigitsNet`.
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class DigitsNet(pl.LightningModule):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.layers(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class DigitsData(pl.LightningDataModule):
    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        digits = load_digits()
        self.data = TensorDataset(torch.tensor(digits.data / 16).float(), torch.tensor(digits.target))

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size, shuffle=True)


def train(seed: int, folder: str, every_n_epochs: int = 4) -> None:
    """Trains 4 epochs from one seed, and saves `epoch=0.ckpt`, ... in the folder, after every n-th alone."""
    pl.seed_everything(seed)
    keep = ModelCheckpoint(
        folder, "{epoch}", every_n_epochs=every_n_epochs, save_top_k=-1, enable_version_counter=False
    )
    trainer = pl.Trainer(max_epochs=4, callbacks=[keep], accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(DigitsNet(), datamodule=DigitsData())
