"""LightningDataModules of the data sets that the experiments use."""

from lightning_landscape.datamodules.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_landscape.datamodules.digits import DigitsDataModule
from lightning_landscape.datamodules.mnist import MNISTDataModule
from lightning_landscape.datamodules.penn_treebank import PennTreebankDataModule
from lightning_landscape.datamodules.planted_teacher import PlantedTeacherDataModule
from lightning_landscape.datamodules.polynomials import PolynomialDataModule
from lightning_landscape.datamodules.sbm import SBMDataModule
from lightning_landscape.datamodules.snap import SNAPCommunityDataModule
from lightning_landscape.datamodules.sparse_coding import SparseCodingDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "MNISTDataModule",
    "PennTreebankDataModule",
    "PlantedTeacherDataModule",
    "PolynomialDataModule",
    "SBMDataModule",
    "SNAPCommunityDataModule",
    "SparseCodingDataModule",
]
