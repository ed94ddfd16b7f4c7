"""May the last checkpoints of a run be averaged? `landscape average` writes the average, if it is worth having.

python examples/landscape_average.py --out runs/examples/landscape_average
"""

import argparse
import json
from pathlib import Path

from landscape_connect import RECIPE
from my_project import train

from lightning_landscape.commands import run


def main(out: Path) -> None:
    train(1, f"{out}/seed1", every_n_epochs=1)
    (out / "recipe.yaml").write_text(RECIPE)

    files = [f"{out}/seed1/epoch={epoch}.ckpt" for epoch in (2, 3)]
    average = str(out / "average.ckpt")
    command = ["average", *files, "--config", str(out / "recipe.yaml"), "--out", average]
    print("In a shell: PYTHONPATH=examples landscape", *command)
    code = run(command[0], command[1:], "landscape")

    found = json.loads((out / "average.json").read_text())
    print(f"Exit code {code}: {'written' if found['written'] else 'not written'}. {found['conclusion']}")
    losses = {model["name"]: model["loss"] for model in found["models"]}
    mean, best = losses["uniform average of 2 of 2"], min(losses[file] for file in files)
    print(f"The loss of the average is {mean:.4f}, of the best checkpoint {best:.4f}.")
    print("Files of several runs need --align, which brings their hidden units into one order first.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/landscape_average", help="folder of all files")
    main(parser.parse_args().out)
