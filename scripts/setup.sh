#!/usr/bin/env bash
# Makes .venv at the root of the repository and installs the package there, editable.
# Usage: scripts/setup.sh [DEPENDENCY_GROUP]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
group="${1:-}"

# Another pyproject.toml or another place of the repository asks for a new installation, nothing else does.
stamp=".venv/.installed-${group:-package}"
wanted="$(pwd -P) $(cksum <pyproject.toml)"
if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]] && .venv/bin/python -c "" 2>/dev/null; then
  exit 0
fi

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! recent .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
    if [[ -z "$python" ]]; then
      echo "setup.sh: found no Python 3.11 or newer; install one (Debian and Ubuntu: apt install python3 python3-venv)" >&2
      exit 1
    fi
    if recent "$python"; then break; fi
  done
  "$python" -m venv --clear .venv
fi

.venv/bin/python -m pip install --upgrade "pip>=25.1" # the first that knows --group
.venv/bin/python -m pip install --editable . ${group:+--group "$group"}
echo "$wanted" >"$stamp"
