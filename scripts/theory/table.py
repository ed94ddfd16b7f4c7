"""docs/results/theory.md, from the measurements of pairs.py and sweep.py.

python -m scripts.theory.table docs/results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lightning_landscape.storage.atomic import replacing
from scripts.reproduce.shared.pages import table


def pair_row(row: dict[str, Any]) -> list[str]:
    level = max(row["loss_a"], row["loss_b"])
    theorem = f"{row['height']:.6f}, {row['length']:.2f}"
    searches = [f"{f['verdict']}: {f['height']:.6f}, {f['length']:.2f}, {f['steps']}" for f in row["searches"]]
    epsilon = f"{row['epsilon']:.6f}" if "epsilon" in row else ""
    return [row["network"], f"{level:.6f}", f"{row['linear_height']:.4f}", theorem, epsilon, *searches]


def consistent(row: dict[str, Any]) -> bool:
    """Whether the theorem's path is as low as it promises; a ``not_found`` of a finder contradicts nothing."""
    bound = max(row["loss_a"], row["loss_b"], row.get("epsilon", 0.0))
    return bool(row["height"] <= bound * (1 + 1e-9))


def control_rows(measured: dict[str, Any]) -> list[list[str]]:
    return [
        ["-".join(map(str, row["widths"])), f"{row['separating_height']:.5f}", f"{row['level']:.5f}"]
        + [f"{found['verdict']}, {found['height']:.4f}" for found in row["searches"]]
        for row in measured["controls"]
    ]


def slope(value: float | None, averages: list[float], widths: list[int], floor: float) -> str:
    if value is not None:
        return f"{value:.2f}"
    positive = [index for index, mean in enumerate(averages) if mean > floor]
    return f"0 from m = {widths[positive[-1] + 1 if positive else 0]} on"


def document(pairs: dict[str, Any], sweep: dict[str, Any]) -> str:
    settings, widths = pairs["settings"], sorted({row["width"] for row in sweep["rows"]})
    broken = [row["network"] for row in pairs["pairs"] if not consistent(row)]
    passed = [
        f"{row['widths']}: {found['finder']}"
        for row in pairs["controls"]
        for found in row["searches"]
        if found["verdict"] != "not_found" or found["height"] < row["separating_height"] * (1 - 1e-3)
    ]
    finders = [found["finder"] for found in pairs["controls"][0]["searches"]]
    margins = [f"DSS at margin {margin}: height, length, steps" for margin in settings["margins"]]
    head = ["network", "max(E_a, E_b)", "linear height", "theorem: height, length", "epsilon", *margins]
    means = []
    for inputs in sorted({row["inputs"] for row in sweep["rows"]}):
        for excess in ("rise", "gap"):
            values = [
                [row[excess] for row in sweep["rows"] if row["inputs"] == inputs and row["width"] == width]
                for width in widths
            ]
            averages = [sum(value) / len(value) for value in values]
            fit = next(row for row in sweep["exponents"] if row["inputs"] == inputs)
            means.append(
                [
                    str(inputs),
                    excess,
                    *(f"{mean:.1e}" for mean in averages),
                    slope(fit[excess], averages, widths, sweep["floor"]),
                    f"{fit['bound']:.2f}",
                ]
            )
    options = sweep["settings"]
    return f"""# The theorems, measured

Made by `scripts/theory/run.sh`, which also draws the figures of [the tutorial](../theory.md); the numbers are in
`theory_pairs.json` and `theory_sweep.json` beside this file.

## Trained pairs

Two networks of each kind, seeds {" and ".join(map(str, settings["seeds"]))}, after {settings["epochs"]} epochs of Adam
at rate 0.01 on 256 examples of a planted teacher (noise 0.1, data seed 0); E is taken on these examples in float64.
Lengths are normalised by the distance of the ends. Dynamic String Sampling (DSS) searches below
(1 + margin) max(E_a, E_b) and may take {settings["work"]} training steps.

{table(head, [pair_row(row) for row in pairs["pairs"]])}
Theorem's paths above what they promise, `max(E_a, E_b)` or, for the two-layer ReLU, `max(E_a, E_b, epsilon)`:
{", ".join(broken) or "none"}.

## The negative control

For each architecture the data, the two minima and the separating height of `theory.counterexample`. Each finder
searches below the level, which lies {settings["share"]} of the way from the minimum to that height, with the same
budget. In a cell: verdict and height.

{table(["widths", "separating height", "level", *finders], control_rows(pairs))}
Finders that found what is not there, or with a measured height below the separating one: {", ".join(passed) or "none"}.

## The excess of the two-layer ReLU construction against the width

Means over {options["seeds"]} seeds: {options["examples"]} examples of a planted teacher of
{options["teacher_units"]} ReLU units without noise, l1 = {options["l1"]}, first layers drawn uniformly from the
sphere, on each the best second layer. The rise is max(0, epsilon - max(E_a, E_b)). The gap is epsilon less the E of
the best second layer on the teacher's units and {options["dense"]} random ones. The exponent is the slope of
log(mean) over log m, fitted where the mean is above {sweep["floor"]:g}.

{table(["n", "excess", *(f"m = {width}" for width in widths), "exponent", "bound -1/n"], means)}
![Excess over the width](../images/theory-sweep.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    pairs, sweep = (json.loads((results / f"theory_{name}.json").read_text()) for name in ("pairs", "sweep"))
    with replacing(results / "theory.md") as file:
        file.write(document(pairs, sweep).encode())


if __name__ == "__main__":
    main()
