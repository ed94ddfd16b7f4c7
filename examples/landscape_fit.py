"""Train your own classes from a recipe, a callback of this project among the rest: `landscape fit`.

python examples/landscape_fit.py --out runs/examples/landscape_fit
"""

import argparse
import sys
from pathlib import Path

from lightning_landscape.cli import main as landscape

RECIPE = """
seed_everything: 0
model: {{class_path: my_project.DigitsNet, init_args: {{width: 32}}}}
data: {{class_path: my_project.DigitsData}}
trainer:
  max_epochs: 4
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {out}
  callbacks:
    - class_path: lightning_landscape.callbacks.LevelSetConnectivity
      init_args: {{pairs: lagged, every_n_epochs: 2, dirpath: {out}/landscape}}
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {{dirpath: {out}/checkpoints, monitor: train_loss, filename: best, enable_version_counter: false}}
"""


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(RECIPE.format(out=out))

    command = ["fit", "--config", str(out / "recipe.yaml"), "--model.init_args.width", "24"]
    print("In a shell: PYTHONPATH=examples landscape", *command)
    sys.argv[1:] = command  # as the shell would give them
    landscape()

    print(f"The recipe as it was used, with a width of 24: {out}/resolved_fit.yaml")
    print(f"For `landscape connect`: {out}/checkpoints/best.ckpt and the snapshots in {out}/landscape/snapshots")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/landscape_fit", help="folder of all files")
    main(parser.parse_args().out)
