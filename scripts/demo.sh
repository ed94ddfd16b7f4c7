#!/usr/bin/env bash
# Trains two small CNNs on real handwritten digits and checks during training whether they are connected.
# Usage: scripts/demo.sh [ARGUMENT OF landscape fit ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh
export WANDB_SILENT=true
exec .venv/bin/landscape fit --config configs/digits.yaml "$@"
