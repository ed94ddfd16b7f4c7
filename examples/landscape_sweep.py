"""Is this width enough? `landscape sweep` trains pairs at each width, and joins them below one common level.

python examples/landscape_sweep.py --out runs/examples/landscape_sweep
"""

import argparse
import json
from pathlib import Path

from landscape_connect import RECIPE

from lightning_landscape.commands import run


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(RECIPE)

    over, asked = "model.init_args.width=2,32", ["--level", "0.4", "--seeds", "1", "--max_epochs", "6"]
    command = ["sweep", "--config", str(out / "recipe.yaml"), "--over", over, *asked, "--out", str(out / "sweep")]
    print("In a shell: PYTHONPATH=examples landscape", *command)
    code = run(command[0], command[1:], "landscape")

    found = json.loads((out / "sweep" / "sweep.json").read_text())
    print(f"Exit code {code}: {found['conclusion']}")
    for row in found["table"]:
        print(f"width {row['value']}: {row['connected']} of {row['pairs']} connected, final loss {row['loss']:.3f}")
    print(
        "Each run and pair is kept: the same command again has nothing left to do, with more --seeds only the new ones."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default="runs/examples/landscape_sweep", help="folder of all files")
    main(parser.parse_args().out)
