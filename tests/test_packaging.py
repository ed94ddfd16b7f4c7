"""The wheel, the sdist and an editable installation hold the same package, symlinked folders included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

PUBLIC = {
    "lightning_landscape": ["LossSurface", "Path", "Connection", "Verdict", "Snapshot", "SnapshotStore"],
    "lightning_landscape.finders": ["PathFinder", "Budget", "LinearPath", "DynamicStringSampling"],
    "lightning_landscape.callbacks": ["LevelSetConnectivity", "SnapshotRecorder"],
    "lightning_landscape.datamodules": ["DigitsDataModule", "MNISTDataModule"],
    "lightning_landscape.models": ["ImageClassifier"],
}

# Started with -I -S, so that sys.path holds the standard library alone: the installation under test comes first, then
# the libraries it needs, without the .pth files by which this environment might know an editable copy of its own.
IMPORT_EVERYTHING = """
import importlib, json, site, sys
installation, libraries, public = sys.argv[1], sys.argv[2:-1], json.loads(sys.argv[-1])
site.addsitedir(installation)
sys.path.extend(libraries)
import lightning_landscape.cli
missing = [f"{module}.{name}" for module, names in public.items() for name in names
           if not hasattr(importlib.import_module(module), name)]
found = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("lightning_landscape")}
json.dump({"missing": missing, "files": found, "top": [name for name in ("callbacks", "datamodules")
           if importlib.util.find_spec(name)]}, sys.stdout)
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command, which must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def import_everything(installation: Path, cwd: Path) -> dict[str, str]:
    """Files of all modules of the package, by name, after every public name was imported from `installation`."""
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    report = json.loads(
        run(sys.executable, "-I", "-S", "-c", IMPORT_EVERYTHING, installation, *libraries, json.dumps(PUBLIC), cwd=cwd)
    )
    assert report["missing"] == []
    assert report["top"] == [], "the folders of the repository must not be importable as packages of their own"
    return dict(report["files"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of what the build reads: the build leaves folders behind, and must find no older ones."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    for name in ("lightning_landscape", "callbacks", "datamodules", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, source / name, symlinks=True, ignore=ignore)
    return source


@pytest.fixture(scope="module")
def modules(source: Path) -> set[str]:
    """Every file of the package, as a wheel should name it."""
    package = source / "lightning_landscape"
    folders = [package, *(package / name for name in ("callbacks", "datamodules"))]
    files = [file for folder in folders for file in folder.rglob("*.py")]  # rglob follows no symlink below its root
    return {file.relative_to(source).as_posix() for file in [*files, package / "py.typed"]}


@pytest.fixture(scope="module")
def archives(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Path of the sdist, of the wheel built from it, and of the wheel built from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    run(*build, folder / "sdist", source, cwd=folder)
    run(*build, folder / "tree", "--wheel", source, cwd=folder)
    (sdist,) = folder.glob("sdist/*.tar.gz")
    (from_sdist,) = folder.glob("sdist/*.whl")
    (from_tree,) = folder.glob("tree/*.whl")
    return {"sdist": sdist, "wheel from sdist": from_sdist, "wheel from tree": from_tree}


def test_symlinks_are_relative_and_lead_to_the_top_level_folders(repository: Path) -> None:
    for name in ("callbacks", "datamodules"):
        link = repository / "lightning_landscape" / name
        assert link.readlink() == Path("..", name)
        assert not (repository / name).is_symlink()


@pytest.mark.parametrize("kind", ["wheel from sdist", "wheel from tree"])
def test_wheel_holds_each_module_once_and_no_other_package(
    kind: str, archives: dict[str, Path], modules: set[str]
) -> None:
    names = zipfile.ZipFile(archives[kind]).namelist()
    page = {f"lightning_landscape/report/page/page.{suffix}" for suffix in ("css", "html", "js")}
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(modules | page)


def test_sdist_holds_real_files_in_place_of_the_symlinks(archives: dict[str, Path], modules: set[str]) -> None:
    with tarfile.open(archives["sdist"]) as archive:
        members = archive.getmembers()
    files = {member.name.partition("/")[2]: member for member in members}
    assert modules <= set(files)
    assert {"LICENSE", "README.md", "pyproject.toml", "configs/digits.yaml"} <= set(files)
    assert not any(member.issym() or member.islnk() for member in members)


@pytest.mark.parametrize("kind", ["wheel from sdist", "wheel from tree"])
def test_installed_wheel_imports_every_public_name(kind: str, archives: dict[str, Path], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", scratch, archives[kind], cwd=tmp_path)
    files = import_everything(scratch, cwd=tmp_path)
    outside = {name: file for name, file in files.items() if not Path(file).is_relative_to(scratch)}
    assert outside == {}
    assert len(set(files.values())) == len(files), "a module was imported under two names"


def test_editable_installation_imports_every_public_name(source: Path, tmp_path: Path) -> None:
    hook = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run(sys.executable, "-c", hook, tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    scratch = tmp_path / "scratch"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", scratch, wheel, cwd=tmp_path)
    files = import_everything(scratch, cwd=tmp_path)
    outside = {name: file for name, file in files.items() if not Path(file).is_relative_to(source)}
    assert outside == {}
    assert len({Path(file).resolve() for file in files.values()}) == len(files)
