"""Are two checkpoints of your own runs in one basin? `landscape connect` answers from the files.

python examples/landscape_connect.py --out runs/examples/landscape_connect
"""

import argparse
import json
from pathlib import Path

from my_project import train

from lightning_landscape.commands import run

# Which classes made the checkpoints. A recipe of `landscape fit` has more sections; these two are enough here.
RECIPE = """
model: {class_path: my_project.DigitsNet, init_args: {width: 32}}
data: {class_path: my_project.DigitsData, init_args: {batch_size: 64}}
"""


def main(out: Path) -> None:
    train(1, f"{out}/seed1")
    train(2, f"{out}/seed2")
    (out / "recipe.yaml").write_text(RECIPE)

    files = [f"{out}/seed1/epoch=3.ckpt", f"{out}/seed2/epoch=3.ckpt"]
    command = ["connect", *files, "--config", str(out / "recipe.yaml"), "--out", str(out / "connect")]
    print("In a shell: PYTHONPATH=examples landscape", *command)
    code = run(command[0], command[1:], "landscape")

    found = json.loads((out / "connect" / "connection.json").read_text())
    print(f"Exit code {code}: {'one basin' if code == 0 else 'no path was found, which does not prove two basins'}.")
    print(f"The straight line rises to {found['linear_height']:.3f}, the path to {found['height']:.3f}.")
    print(
        f"The level was {found['level']:.3f}, the losses at the ends {found['loss_a']:.3f} and {found['loss_b']:.3f}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/landscape_connect", help="folder of all files")
    main(parser.parse_args().out)
