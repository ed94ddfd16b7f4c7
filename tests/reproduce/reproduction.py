"""Puts scripts/reproduce on the path, so that tests import its modules as the script itself does."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts" / "reproduce"
sys.path.append(str(SCRIPTS))
