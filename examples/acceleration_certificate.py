"""Do learned layers of a sparse coder beat ISTA, and can theory tell? `AccelerationCertificate` logs both.

python examples/acceleration_certificate.py --out runs/examples/acceleration_certificate
"""

import argparse

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from lightning_landscape.callbacks import AccelerationCertificate
from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder

DEPTH = 3


def tell(when: str, values: dict[str, Tensor]) -> None:
    for k in range(1, DEPTH + 1):
        layer = f"certificate/layer_{k}"
        if values[f"{layer}/valid"]:
            theory = f"at most {values[f'{layer}/bound']:.2f} by theory (ISTA: {values[f'{layer}/ista_bound']:.2f})"
        else:
            lowest = values[f"{layer}/smallest_eigenvalue"]
            theory = f"no bound, as the theorem asks for R without negative eigenvalues, and one is {lowest:.4f}"
        print(f"{when}, layer {k}: F - F* is {values[f'val/suboptimality_{k}']:.2f}; {theory}.")
    share = values[f"certificate/design_holds_{DEPTH}"]
    print(f"{when}: the random-design condition holds for {share:.0%} of the signals at the last iterate.")


def main(out: str) -> None:
    pl.seed_everything(0)
    data = SparseCodingDataModule(
        "gaussian", normalization="squared_norm", steps_per_epoch=50, val_size=20, test_size=2
    )
    network = UnrolledSparseCoder("facnet", depth=DEPTH, dictionary=data.dictionary, lam=data.lam)
    trainer = pl.Trainer(
        max_epochs=5,
        callbacks=[AccelerationCertificate()],  # the one line
        accelerator="cpu",
        logger=CSVLogger(out, name=None, version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(network, datamodule=data, verbose=False)
    tell("untrained", trainer.callback_metrics)
    trainer.fit(network, datamodule=data)
    tell("trained", trainer.callback_metrics)
    print(f"Every number after every epoch: {out}/metrics.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/examples/acceleration_certificate", help="folder of all files")
    main(parser.parse_args().out)
