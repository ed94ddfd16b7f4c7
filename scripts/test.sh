#!/usr/bin/env bash
# Runs the whole test suite.
# Usage: scripts/test.sh [ARGUMENT OF pytest ...]     for instance: scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
exec .venv/bin/python -m pytest "$@"
