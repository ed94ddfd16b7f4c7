#!/usr/bin/env bash
# Measures the theorems and writes docs/results/theory.md and the figures of docs/theory.md: about a quarter of an hour.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
scripts/setup.sh
python=.venv/bin/python
"$python" -m scripts.theory.pairs docs/results/theory_pairs.json
"$python" -m scripts.theory.sweep docs/results/theory_sweep.json
"$python" -m scripts.theory.table docs/results
"$python" -m scripts.theory.figures docs/results docs/images
