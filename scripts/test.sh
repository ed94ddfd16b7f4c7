#!/usr/bin/env bash
# Runs the whole test suite.
# Usage: scripts/test.sh [ARGUMENT OF pytest ...]     for instance: scripts/test.sh -m "not slow" --numprocesses 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
# Two processes fill two cores, one thread each (tests/conftest.py). A process that has nothing left takes tests of the
# other: what remains in order, so that fixtures of a module are mostly made once.
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
