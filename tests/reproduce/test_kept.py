"""What was finished before is taken for the same settings alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.reproduce.shared import kept
from scripts.reproduce.shared.kept import KeptError, finished, keep, once

SETTINGS = {"seed": 0, "depths": (1, 2)}


def test_a_result_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert finished(path, SETTINGS) is None
    assert once(path, SETTINGS, lambda: {"height": 0.5}) == {"height": 0.5}
    assert once(path, SETTINGS, lambda: pytest.fail("made again")) == {"height": 0.5}
    assert kept.read(path) == ({"seed": 0, "depths": [1, 2]}, {"height": 0.5})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({**SETTINGS, "seed": 1}, "seed: 0, now 1"),
        ({"seed": 0}, r"depths: \[1, 2\], now None"),
        ({**SETTINGS, "size": 3}, "size: None, now 3"),
    ],
)
def test_changed_settings_are_refused_by_name(settings: dict[str, object], named: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    keep(path, SETTINGS, 1)
    with pytest.raises(KeptError, match=rf"result.json was made with other settings \({named}\): give another --out"):
        once(path, settings, lambda: pytest.fail("made"))
    assert finished(path, SETTINGS) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"result": 1}', json.dumps({"overlap": 0.5})])
def test_a_damaged_or_foreign_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(KeptError, match=r"result.json is damaged .*: delete it"):
        once(path, SETTINGS, lambda: pytest.fail("made"))
    assert path.read_text() == content


def test_a_killed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    keep(path, SETTINGS, 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(path, SETTINGS, 2)
    assert finished(path, SETTINGS) == 1
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "new.json", SETTINGS, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
