from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from glmpatch.building.record import BackendInfo
from glmpatch.errors import ExitCode, GlmpatchError
from glmpatch.mpi.flavour import FlavourId
from glmpatch.training import launcher
from glmpatch.training.launcher import Mpirun, Torchrun, find_launcher
from tests.mpi_support import ALL_FLAVOURS, installation

BUILT = BackendInfo(
    version="0.1.0+x",
    torch="2.13.0",
    flavour="intel",
    mpi="Intel MPI",
    mpi_version="2021.18.1",
    mpi_root="/nowhere",
    identity="",
    library="",
    compiler="",
    compile_flags=(),
    link_flags=(),
    sanitized=False,
    inputs="",
)


def with_backend(monkeypatch: pytest.MonkeyPatch, info: BackendInfo | None) -> None:
    monkeypatch.setattr(launcher, "installed_backend", lambda: info)


def test_gloo_where_there_is_no_mpi_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, None)
    assert find_launcher(None) == find_launcher("gloo") == Torchrun()
    with pytest.raises(GlmpatchError, match="no MPI backend") as caught:
        find_launcher("mpi")
    assert (caught.value.exit_code, caught.value.hint) == (
        ExitCode.ENVIRONMENT,
        "glmpatch build-backend --mpi intel",
    )
    with pytest.raises(GlmpatchError, match="does not run with the backend ccl") as refused:
        find_launcher("ccl")
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_mpi_where_there_is_a_backend(flavour: FlavourId, monkeypatch: pytest.MonkeyPatch) -> None:
    mpi = installation(flavour)
    with_backend(monkeypatch, msgspec.structs.replace(BUILT, flavour=flavour, mpi_root=str(mpi.root)))
    found = find_launcher(None)
    assert isinstance(found, Mpirun)
    assert (found.backend, found.mpi.root) == ("mpi", mpi.root)
    assert found.title.endswith(mpi.version)
    assert find_launcher("gloo") == Torchrun()


def test_an_mpi_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, BUILT)
    monkeypatch.setattr(type(installation("intel").flavour), "roots", lambda _: iter(()))
    with pytest.raises(GlmpatchError, match=r"Intel MPI 2021\.18\.1 in /nowhere, which is gone") as caught:
        find_launcher("mpi")
    assert caught.value.hint == "glmpatch build-backend --mpi intel"


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_what_a_person_is_told_to_type_runs(
    flavour: FlavourId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/a b")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    (tmp_path / "train it.sh").write_text('echo "<$LD_LIBRARY_PATH>"\n')
    line = Mpirun(installation(flavour)).to_type(2, "train it.sh")
    assert os.environ["PATH"] not in line
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(found.endswith("/a b>") for found in lines)
