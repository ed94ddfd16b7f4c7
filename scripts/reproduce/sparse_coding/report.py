"""The tables of docs/results/sparse_coding.md, between the marks that its text holds, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from lightning_landscape.report.style import STYLE, save_figure
from scripts.reproduce.shared import pages
from scripts.reproduce.shared.kept import KeptError
from scripts.reproduce.sparse_coding import certificate, curves, landscape
from scripts.reproduce.sparse_coding.reference import kept_reference, signals
from scripts.reproduce.sparse_coding.training import DATASETS, data_of, kept_rows, load, training_of

PARTS = (*DATASETS, "certificate", "landscape")
_TITLES = {
    "gaussian": "Gaussian dictionary 64 x 100, columns divided by ||d||^2, sparsity .05, lambda .01",
    "adversarial": "Adversarial dictionary, real parts of random Fourier modes, 50 x 256, lambda .01",
    "mnist-patches": "10 x 10 patches of MNIST, learned dictionary 100 x 200, lambda .1",
}
_ITERATIONS = 60  # of ISTA, for the random-design condition


def write_report(parts: Sequence[str], out: Path, results: Path, source: Path, certified: int) -> None:
    """Fill ``sparse_coding.md`` in ``results`` and draw its figures, from what ``out`` holds.

    Raises:
        KeptError: if something is missing in ``out``.
        PageError: if a mark is missing in the text.
    """
    written: dict[str, str] = {}
    for part in parts:
        with style.context(STYLE):
            if part == "certificate":
                written[part], drawn = _certificate(out, source, certified)
            elif part == "landscape":
                checks = landscape.kept_checks(out)
                written[part], drawn = landscape.table(checks), landscape.figure(checks)
            else:
                written[part], drawn = _curves(part, out)
        save_figure(drawn, results / f"sparse_coding_{part.replace('-', '_')}.png")
    pages.fill(results / "sparse_coding.md", written)


def _curves(dataset: str, out: Path) -> tuple[str, Figure]:
    rows, reference = kept_rows(dataset, out), kept_reference(dataset, out)
    closing = f"Mean F* {reference.optimum:.5f}; largest relative duality gap of the optima {reference.gap:.1e}."
    said = [*curves.conclusions(rows, reference), closing]
    return f"{curves.table(rows, reference)}\n{' '.join(said)}\n", curves.figure(rows, reference, _TITLES[dataset])


def _certificate(out: Path, source: Path, certified: int) -> tuple[str, Figure]:
    trainings = [training_of(row) for row in kept_rows("gaussian", out)]
    found = [training for training in trainings if (training.network, training.depth) == ("facnet", certified)]
    if not found:
        raise KeptError(f"{out} holds no FacNet of {certified} layers: run `train --networks facnet` first")
    network, batch = load(found[0], out), signals(data_of(found[0], out, source))
    layers = certificate.layers_of(network, batch)
    failures = certificate.first_failures(network, batch)
    first = {k: count for k, count in enumerate(failures[:-1]) if count}
    closing = (
        f"\nLeast of bound - (F - F*) over all {len(batch.x)} test points and all layers: "
        f"{min(layer['least_slack'] for layer in layers):.2g}.\n\n"
        f"Random-design condition, iterates of this FacNet: met at every iterate by {failures[-1]} of {len(batch.x)} "
        f"points; first failures at {', '.join(f'k = {k}: {count}' for k, count in first.items()) or 'no k'}.\n"
    )
    return certificate.table(layers) + closing, certificate.figure(
        layers, certificate.designs(network, batch, _ITERATIONS)
    )
