from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from glmpatch.building.record import RECORD, BackendInfo, backend_in_wheel, installed_backend

INFO = BackendInfo(
    version="0.1.0+torch2.13.0.cpu.mpich5.0.2",
    torch="2.13.0+cpu",
    flavour="mpich",
    mpi="MPICH",
    mpi_version="5.0.2",
    mpi_root="/mpi",
    identity="MPICH Version: 5.0.2",
    library="MPICH Version: 5.0.2 MPICH Release date: Fri",
    compiler="c++ 12",
    compile_flags=("-I/mpi/include",),
    link_flags=("-lmpi",),
    sanitized=False,
    inputs="0123",
)


def install(site: Path, record: bytes) -> Path:
    """What pip leaves."""
    (site / "glmpatch_mpi").mkdir()
    (site / RECORD).write_bytes(record)
    metadata = site / "glmpatch_mpi-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: glmpatch-mpi\nVersion: 0.1.0\n")
    return site


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])


def test_nothing_is_installed() -> None:
    assert installed_backend() is None


def test_the_installed_one_is_told(tmp_path: Path) -> None:
    install(tmp_path, msgspec.json.encode(INFO))
    assert installed_backend() == INFO


@pytest.mark.parametrize("record", [b"", b"{", b'{"flavour": "lam"}', b"[]"])
def test_a_damaged_one_counts_as_none(record: bytes, tmp_path: Path) -> None:
    install(tmp_path, record)
    assert installed_backend() is None
    (tmp_path / RECORD).unlink()
    assert installed_backend() is None


def test_one_whose_files_are_not_as_they_were_installed_counts_as_none(tmp_path: Path) -> None:
    install(tmp_path, msgspec.json.encode(INFO))
    library = tmp_path / "glmpatch_mpi/_C.so"
    library.write_bytes(b"library")
    record = tmp_path / "glmpatch_mpi-0.1.0.dist-info/RECORD"
    record.write_text(f"glmpatch_mpi/_C.so,sha256=0,7\n{RECORD},,\n")
    assert installed_backend() == INFO
    library.write_bytes(b"")
    assert installed_backend() is None
    library.unlink()
    assert installed_backend() is None


def test_the_one_in_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    assert backend_in_wheel(wheel) is None
    wheel.write_bytes(b"no archive")
    assert backend_in_wheel(wheel) is None
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", b"")
    assert backend_in_wheel(wheel) is None
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(RECORD, msgspec.json.encode(INFO))
    assert backend_in_wheel(wheel) == INFO
