"""LightningDataModules of the data sets that the experiments use."""

from lightning_landscape.datamodules.digits import DigitsDataModule
from lightning_landscape.datamodules.mnist import MNISTDataModule

__all__ = ["DigitsDataModule", "MNISTDataModule"]
