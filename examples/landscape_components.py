"""Checkpoints of two runs: in how many components of the level set do they lie? `landscape components` counts.

python examples/landscape_components.py --out runs/examples/landscape_components
"""

import argparse
import json
from pathlib import Path

from my_project import train

from lightning_landscape.commands import run

# Which classes made the checkpoints. A recipe of `landscape fit` has more sections; these two are enough here.
RECIPE = """
model: {class_path: my_project.DigitsNet}
data: {class_path: my_project.DigitsData}
"""


def main(out: Path) -> None:
    folders = [f"{out}/seed1", f"{out}/seed2"]
    for seed, folder in enumerate(folders, start=1):
        train(seed, folder, every_n_epochs=2)
    (out / "recipe.yaml").write_text(RECIPE)

    command = ["components", *folders, "--config", str(out / "recipe.yaml"), "--out", str(out / "components")]
    print("In a shell: PYTHONPATH=examples landscape", *command)
    code = run(command[0], command[1:], "landscape")

    found = json.loads((out / "components" / "components.json").read_text())
    print(f"Exit code {code}: {found['num_components']} component(s) found below the level {found['level']:.3f}.")
    print(f"It took {len(found['searches'])} searches. Each is kept: the same command again has nothing left to do.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/landscape_components", help="folder of all files")
    main(parser.parse_args().out)
