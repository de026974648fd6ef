from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.building import toolchain
from glmpatch.building.preflight import problems_of_tools
from glmpatch.building.toolchain import Compiler, Torch, find_compiler, find_torch, hash_inputs, source_files
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import Installation

TORCH = Torch("2.13.0+cpu", "stamp")
COMPILER = Compiler("c++", "c++ 12")
MPI = Installation(
    FLAVOURS["mpich"], Path("/mpi"), "5.0.2", "MPICH 5.0.2", "MPICH 5.0.2 of", Path("/mpi/bin/mpirun"), (), ()
)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our sources."""
    copy = shutil.copytree(toolchain.sources(), tmp_path / "mpi_backend", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(toolchain, "sources", lambda: copy)
    for name in toolchain._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return copy


def test_torch_is_found_without_importing_it() -> None:
    torch = pytest.importorskip("torch")
    found = find_torch()
    assert found
    assert found.version == torch.__version__


def test_torch_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert find_torch() is None
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").touch()
    assert find_torch() is None
    (tmp_path / "torch/version.py").write_text("__all__ = ['__version__']\n__version__: str = \"2.9.1\"\n")
    found = find_torch()
    assert found
    assert found.version == "2.9.1"


def test_the_compiler_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ -pipe")
    found = find_compiler()
    assert found
    assert found.command == "g++ -pipe"
    assert found.banner.startswith("g++ ")


@pytest.mark.parametrize("name", ["no-such-compiler", "false", '"g++', " ", "./no-program"])
def test_a_named_compiler_that_does_not_start_is_not_replaced(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no-program").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "no-program").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", name)
    assert find_compiler() is None
    assert repr(name) in next(problems_of_tools(None)).what


def test_the_systems_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "g++").symlink_to(shutil.which("g++") or "g++")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_compiler()
    assert found
    assert found.command == "g++"


def test_the_same_gives_the_same_hash(sources: Path) -> None:
    before = hash_inputs(TORCH, COMPILER, MPI)
    (sources / "glmpatch_mpi/__pycache__").mkdir()
    (sources / "glmpatch_mpi/__pycache__/x.pyc").touch()
    (sources / "glmpatch_mpi/build.json").touch()
    os.utime(sources / "setup.py")
    assert hash_inputs(TORCH, COMPILER, MPI) == before


@pytest.mark.parametrize(
    "changed",
    [
        lambda: hash_inputs(replace(TORCH, version="2.14.0"), COMPILER, MPI),
        lambda: hash_inputs(replace(TORCH, stamp="another build of it"), COMPILER, MPI),
        lambda: hash_inputs(TORCH, replace(COMPILER, banner="c++ 13"), MPI),
        lambda: hash_inputs(TORCH, replace(COMPILER, command="clang++"), MPI),
        lambda: hash_inputs(TORCH, COMPILER, replace(MPI, library="MPICH 5.0.2 with another configuration")),
        lambda: hash_inputs(TORCH, COMPILER, replace(MPI, root=Path("/elsewhere"))),
        lambda: hash_inputs(TORCH, COMPILER, replace(MPI, link_flags=("-lmpich",))),
    ],
)
def test_another_tool_gives_another_hash(changed: Callable[[], str], sources: Path) -> None:
    assert sources.exists()
    assert changed() != hash_inputs(TORCH, COMPILER, MPI)


def test_every_file_of_ours_counts(sources: Path) -> None:
    hashes = {hash_inputs(TORCH, COMPILER, MPI)}
    files = source_files()
    assert {"setup.py", "glmpatch_mpi/__init__.py", "reduce.cpp"} <= {file.as_posix() for file in files}
    for file in files:
        (sources / file).write_bytes((sources / file).read_bytes() + b"\n")
        hashes.add(hash_inputs(TORCH, COMPILER, MPI))
    (sources / "new.cpp").touch()
    hashes.add(hash_inputs(TORCH, COMPILER, MPI))
    assert len(hashes) == len(files) + 2


@pytest.mark.parametrize(
    "name",
    [
        *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"),
        *("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH"),
        "GLMPATCH_SANITIZE",
    ],
)
def test_every_variable_that_the_build_reads_counts(name: str, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.exists()
    before = hash_inputs(TORCH, COMPILER, MPI)
    monkeypatch.setenv(name, "1")
    assert hash_inputs(TORCH, COMPILER, MPI) != before
