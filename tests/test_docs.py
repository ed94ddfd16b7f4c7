"""Pages name what exists: imports, files, and the keys of a citation."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import re
import textwrap
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
LANGUAGES = {"python", "bash", "yaml", "mermaid", "text"}  # of fenced code
FENCE = re.compile(r" *(`{3,}|~{3,}) *(.*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A page without its fenced code, and language and text of each piece of it, inside lists too."""
    prose: list[str] = []
    fenced: list[tuple[str, str]] = []
    mark = language = ""
    code: list[str] = []
    for line in text.splitlines():
        fence = FENCE.fullmatch(line)
        if mark and fence and fence[1].startswith(mark) and not fence[2]:
            fenced.append((language, textwrap.dedent("\n".join(code))))
            mark, code = "", []
        elif mark:
            code.append(line)
        elif fence:
            mark, language = fence.groups()
        else:
            prose.append(line)
    return "\n".join(prose), fenced + ([(language, "\n".join(code))] if mark else [])


def wrong_code(text: str) -> list[str]:
    """What hides code of a page from these checks: indentation for a fence, another language, Python that is none."""
    prose, fenced = split(text)
    wrong = [
        f"{line.strip()!r} is code without a fence: put it between ```python and ```"
        for before, line in itertools.pairwise(["", *prose.splitlines()])
        if (not before.strip() and re.match(r"(?: {4,}|\t)\S", line))
        or re.match(r"\s*(?:>>> )?(?:from|import) lightning_landscape", line)
    ]
    for language, code in fenced:
        if language not in LANGUAGES:
            wrong.append(f"a fence of {language!r}: name one of {', '.join(sorted(LANGUAGES))}")
        if language == "python":
            try:
                ast.parse(code)
            except SyntaxError as error:
                wrong.append(f"Python that does not parse ({error}): {code.splitlines()[:1]}")
    return wrong


def imported_names(text: str) -> Iterator[tuple[str, str | None]]:
    """Module and name of every import of the package in the Python blocks of a page."""
    for language, code in split(text)[1]:
        for node in ast.walk(ast.parse(code)) if language == "python" else ():
            if isinstance(node, ast.Import):
                found = [(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            yield from (pair for pair in found if pair[0].split(".")[0] == "lightning_landscape")


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def missing_imports(text: str) -> list[str]:
    missing = []
    for module, name in imported_names(text):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            missing.append(module)
            continue
        if name is not None and not hasattr(found, name) and not is_module(f"{module}.{name}"):
            missing.append(f"{module}.{name}")
    return missing


def broken_links(page: Path) -> list[str]:
    """Relative links of a page, outside its code, to files that are not there."""
    links = LINK.findall(split(page.read_text())[0])
    local = [link.partition("#")[0] for link in links if not re.match(r"\w+:", link)]
    return [link for link in local if link and not (page.parent / unquote(link)).exists()]


@each_page
def test_code_is_fenced_and_python_parses(page: Path) -> None:
    wrong = wrong_code(page.read_text())
    assert not wrong, f"{page}: " + "\n".join(wrong)


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


@pytest.mark.parametrize(
    ("page", "named"),
    [
        ("Text:\n\n    from lightning_landscape import Gone\n", "without a fence"),
        ("Text:\n\n\tx = 1\n", "without a fence"),
        ("1. Text:\n   >>> from lightning_landscape import Gone\n", "without a fence"),
        ("```\nfrom lightning_landscape import Gone\n```\n", "a fence of ''"),
        ("1. a list\n\n   ```py\n   import lightning_landscape\n   ```\n", "a fence of 'py'"),
        ("```python\nfrom lightning_landscape import (\n```\n", "does not parse"),
        ("~~~~python\nx = = 1\n~~~~\n", "does not parse"),
        ("```python\nx = = 1\n", "does not parse"),  # never closed
    ],
)
def test_code_that_the_checks_would_miss_is_found(page: str, named: str) -> None:
    (message,) = wrong_code(page)
    assert named in message
    fine = "- a list\n  that goes on\n\n```text\n    indented\n```\n\n  ```python\n  x = 1\n  ```\n"
    assert not wrong_code(fine)


def test_imports_in_lists_are_found() -> None:
    page = "1. one\n\n   ```python\n   if True:\n       from lightning_landscape import Gone\n   ```\n"
    assert missing_imports(page) == ["lightning_landscape.Gone"]


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
