from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from glmpatch.building.record import BackendInfo
from glmpatch.doctor.mpi_rows import FoundMpis, find_mpis, mpi
from glmpatch.doctor.row import State
from glmpatch.doctor.torch_report import TorchReport
from glmpatch.doctor.tree import PatchedTree
from glmpatch.mpi.flavour import Installation
from glmpatch.patching.model import Options
from tests.doctor.support import is_fine
from tests.mpi_support import installation

TORCH = TorchReport(version="2.13.0", distributed=True, mpi=True)


@pytest.fixture(scope="module")
def mpich() -> Installation:
    return installation("mpich")


@pytest.fixture(scope="module")
def built(mpich: Installation) -> BackendInfo:
    found = (mpich.flavour.id, mpich.flavour.title, mpich.version, str(mpich.root), mpich.identity, mpich.library)
    return BackendInfo("0.1.0", "2.13.0", *found, "g++", (), (), sanitized=False, inputs="")


def test_the_mpi_of_the_backend(mpich: Installation, built: BackendInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{mpich.root}/bin:{os.environ['PATH']}")
    found = find_mpis(built)
    assert found.built_for is not None
    row = mpi(TORCH, built, found, None)
    assert is_fine(row)
    assert row.evidence.endswith("mpirun on PATH is its own")
    assert "not on PATH" in mpi(TORCH, built, replace(found, on_path=None), None).evidence


def test_another_mpirun_on_path(mpich: Installation, built: BackendInfo) -> None:
    other = installation("openmpi").launcher
    row = mpi(TORCH, built, FoundMpis(mpich, {}, other), None)
    assert row.state is State.WARN
    assert str(other) in row.evidence
    typed = f"{row.mend}; command -v mpirun"
    environment = {**os.environ, "PATH": f"{other.parent}:{os.environ['PATH']}"}
    said = subprocess.run(["bash", "-ec", typed], env=environment, check=True, capture_output=True, text=True).stdout
    assert is_fine(mpi(TORCH, built, FoundMpis(mpich, {}, Path(said.strip())), None))


def test_the_mpi_of_the_backend_is_gone(built: BackendInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gone = msgspec.structs.replace(built, mpi_root=str(tmp_path), identity="MPICH Version: 0.0")
    found = find_mpis(gone)
    row = mpi(TORCH, gone, found, None)
    assert row.state is State.FAIL
    assert row.mend == "glmpatch build-backend --mpi mpich"
    assert is_fine(mpi(TORCH, gone, found, PatchedTree(tmp_path, Options("gloo"), None)))


def test_no_backend_yet(mpich: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{mpich.root}/bin:{os.environ['PATH']}")
    row = mpi(TorchReport(version="2.13.0"), None, find_mpis(None), None)
    assert is_fine(row)
    assert f"MPICH {mpich.version} in {mpich.root}" in row.evidence
    assert is_fine(mpi(TORCH, None, FoundMpis(None, {}, None), None))


def test_torch_with_an_mpi_of_its_own(mpich: Installation) -> None:
    own = replace(TORCH, own=True, library=mpich.library)
    assert is_fine(mpi(own, None, FoundMpis(None, {"mpich": mpich}, mpich.launcher), None))
    row = mpi(own, None, FoundMpis(None, {}, None), None)
    assert row.state is State.FAIL
    assert " install mpich==" in row.mend
    older = replace(own, library=mpich.library.replace(mpich.version, "4.0.2"))
    row = mpi(older, None, FoundMpis(None, {"mpich": mpich}, None), None)
    assert row.state is State.WARN
    assert row.evidence.startswith("PyTorch has MPICH 4.0.2, and mpirun is of")
    assert is_fine(mpi(replace(own, library=""), None, FoundMpis(None, {}, None), None))
