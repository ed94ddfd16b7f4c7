"""Are the late weights of a run worth averaging, and from when on? A callback finds out and saves the average.

python examples/average_when_connected.py --out runs/examples/average_when_connected
"""

import argparse
from pathlib import Path

import pytorch_lightning as pl
from my_project import DigitsData, DigitsNet

from lightning_landscape.callbacks import AverageWhenConnected


def main(out: Path) -> None:
    pl.seed_everything(1, verbose=False)
    averaging = AverageWhenConnected(every_n_epochs=1, dirpath=out)
    trainer = pl.Trainer(
        max_epochs=12,
        accelerator="cpu",
        callbacks=[averaging],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsNet(), datamodule=DigitsData())

    print(averaging.row["conclusion"])
    print(f"Averaged are the weights of steps {averaging.row['steps']}.")
    averaged = DigitsNet.load_from_checkpoint(averaging.row["file"])
    print(f"Loaded again, for tests or predictions: {type(averaged).__name__}, from {averaging.row['file']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/average_when_connected", help="folder of all files")
    main(parser.parse_args().out)
