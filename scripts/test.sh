#!/usr/bin/env bash
# Runs the whole test suite.
# Usage: scripts/test.sh [ARGUMENT OF pytest ...]     for instance: scripts/test.sh -m "not slow" --numprocesses 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
# One thread each (tests/conftest.py), so that two processes fill two cores.
exec .venv/bin/python -m pytest --numprocesses 2 "$@"
