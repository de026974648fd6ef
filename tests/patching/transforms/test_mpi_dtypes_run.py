"""The case `collectives`, compiled against real MPIs and run by two ranks."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from glmpatch.building.toolchain import find_compiler
from glmpatch.mpi.flavour import FlavourId
from tests.mpi_support import ALL_FLAVOURS, installation

CASE = Path(__file__).parents[2] / "patches" / "mpi-dtypes" / "collectives"
SOURCES = Path(__file__).with_name("mpi_dtypes")


def run_case(flavour: FlavourId, stem: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile the case as it is before or behind the patch, and run it."""
    mpi = installation(flavour)
    compiler, torch = find_compiler(), importlib.util.find_spec("torch")
    assert compiler is not None
    assert torch is not None
    assert torch.origin is not None
    (folder / "collectives.cpp").write_bytes((CASE / f"{stem}.cpp").read_bytes())
    root, program = Path(torch.origin).parent, folder / "run"
    command = [*shlex.split(compiler.command), "-std=c++17", "-O1", "-DUSE_C10D_MPI", str(SOURCES / "run.cpp")]
    headers = [f"-I{folder}", f"-I{SOURCES}", f"-I{root / 'include'}", *mpi.compile_flags]
    libraries = [f"-L{root / 'lib'}", "-lc10", f"-Wl,-rpath,{root / 'lib'}", *mpi.link_flags]
    subprocess.run([*command, *headers, "-o", str(program), *libraries], check=True)
    return subprocess.run(
        mpi.launch(2, [str(program)]),
        env=mpi.environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_the_patch_the_map_raises(tmp_path: Path) -> None:
    finished = run_case("mpich", "before", tmp_path)
    assert finished.returncode != 0
    assert finished.stdout.count("raised: map::at") == 2, finished.stdout


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_every_dtype_is_carried_and_reduced(flavour: FlavourId, tmp_path: Path) -> None:
    finished = run_case(flavour, "after", tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.count("all right") == 2, finished.stdout
