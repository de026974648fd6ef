"""The wheel and the source archive hold what the program needs to run without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
FOLDERS = ("patches", "templates", "build")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone has of this project, apart from its tests: git keeps no empty folders."""
    copy = tmp_path_factory.mktemp("packaging") / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "*.pyc")
    for name in ("glmpatch", *FOLDERS):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "Makefile"):
        shutil.copy(REPOSITORY / name, copy / name)
    for folder in sorted(copy.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return copy


def build(project: Path, kind: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (project / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def installed(project: Path) -> Path:
    """The wheel, unpacked far from any checkout."""
    folder = project.parent / "site"
    with zipfile.ZipFile(build(project, "wheel")) as wheel:
        wheel.extractall(folder)  # noqa: S202 - made a moment ago
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_has_every_file_of_every_folder(project: Path, installed: Path) -> None:
    for name in FOLDERS:
        assert files(installed / "glmpatch/_assets" / name) == files(project / name)
    assert files(installed / "glmpatch") - files(project / "glmpatch") == {
        f"_assets/{name}/{path}" for name in FOLDERS for path in files(project / name)
    }
    assert {path.name for path in installed.iterdir()} == {"glmpatch", next(installed.glob("*.dist-info")).name}


def test_the_wheel_works_alone(tmp_path: Path, installed: Path) -> None:
    code = f"""
import sys
from glmpatch.assets import asset_folder
from glmpatch.cli import run
for name in {FOLDERS!r}:
    print(asset_folder(name))
sys.exit(run(["patches", "--json"]))
"""
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout.splitlines()[: len(FOLDERS)]
    assert found == [str(installed / "glmpatch/_assets" / name) for name in FOLDERS]


def test_a_wheel_can_be_built_from_the_source_archive(project: Path, installed: Path) -> None:
    unpacked = project.parent / "sdist"
    with tarfile.open(build(project, "sdist")) as archive:
        names = archive.getnames()
        archive.extractall(unpacked, filter="data")
    (top,) = unpacked.iterdir()
    assert f"{top.name}/LICENSE" in names
    with zipfile.ZipFile(build(top, "wheel")) as wheel:
        assert {name for name in wheel.namelist() if name.startswith("glmpatch/")} == {
            f"glmpatch/{path}" for path in files(installed / "glmpatch") if not path.endswith(".pyc")
        }
