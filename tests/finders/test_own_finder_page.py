"""The page on writing a finder shows code that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "write-your-own-finder.md"


def test_the_code_of_the_page_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "own_finder_page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
