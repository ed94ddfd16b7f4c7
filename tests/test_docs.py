"""Pages name what exists: imports, files, and the keys of a citation."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(page for folder in ("docs", "examples") for page in (REPOSITORY / folder).rglob("*.md")),
    ]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def imported_names(text: str) -> Iterator[tuple[str, str | None]]:
    """Module and name of every import of the package in the Python blocks of a page."""
    for language, code in FENCED.findall(text):
        for node in ast.walk(ast.parse(code)) if language == "python" else ():
            if isinstance(node, ast.Import):
                found = [(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            yield from (pair for pair in found if pair[0].split(".")[0] == "lightning_landscape")


def missing_imports(text: str) -> list[str]:
    missing = []
    for module, name in imported_names(text):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            missing.append(module)
            continue
        if name is not None and not hasattr(found, name):
            missing.append(f"{module}.{name}")
    return missing


def broken_links(page: Path) -> list[str]:
    """Relative links of a page, outside its code, to files that are not there."""
    links = LINK.findall(FENCED.sub("", page.read_text()))
    local = [link.partition("#")[0] for link in links if not re.match(r"\w+:", link)]
    return [link for link in local if link and not (page.parent / unquote(link)).exists()]


@each_page
def test_imports_of_the_package_resolve(page: Path) -> None:
    missing = missing_imports(page.read_text())
    assert not missing, f"{page} imports {', '.join(missing)}, which does not exist: name what does"


@each_page
def test_links_lead_to_files(page: Path) -> None:
    broken = broken_links(page)
    assert not broken, f"{page} links to {', '.join(broken)}, which does not exist: correct the link"


def test_the_readme_shows_imports_and_links_to_the_pages() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert ("lightning_landscape.callbacks", "LevelSetConnectivity") in set(imported_names(text))
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "docs/architecture.md"} <= set(LINK.findall(text))


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[here](page.md#part) [gone](gone.md) ![figure](images/gone.png) [web](https://example.org/x)\n"
        "```python\nfrom lightning_landscape import LossSurface, Nothing\nimport lightning_landscape.nowhere\n"
        "import elsewhere\nlinks = [0](1)\n```\n"
    )
    assert missing_imports(page.read_text()) == ["lightning_landscape.Nothing", "lightning_landscape.nowhere"]
    assert broken_links(page) == ["gone.md", "images/gone.png"]


def test_the_changelog_begins_with_what_comes_next() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(numbers, reverse=True)
    assert project()["version"] in versions


def test_the_citation_has_what_the_format_requires() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["authors"] == [{"name": author["name"]} for author in project()["authors"]]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all("name" in author or "family-names" in author for author in reference["authors"])


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
