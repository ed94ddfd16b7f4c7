#!/usr/bin/env bash
# Runs the benchmarks and prints their ratios as a table: scripts/benchmarks/run.sh [pytest arguments]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
results=$(mktemp)
trap 'rm -f "$results"' EXIT
"${PYTHON:-$here/../../.venv/bin/python}" -m pytest "$here" -q -p no:cacheprovider --override-ini addopts= \
  --override-ini "python_files=bench_*.py" --benchmark-only --benchmark-disable-gc --benchmark-json "$results" "$@"
"${PYTHON:-$here/../../.venv/bin/python}" -m scripts.benchmarks.table "$results"
