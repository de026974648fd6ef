"""Real ranks: a real mpirun, a real torch, and the backend that `glmpatch build-backend` makes."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import get_args

import pytest

from glmpatch.building.backend import BackendOptions, build_backend
from glmpatch.building.toolchain import find_compiler, sanitize, sanitizer_environment
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import FlavourId, Installation

# One folder a flavour; `make` installs them.
ROOTS = Path(os.environ.get("GLMPATCH_MPI_ROOTS", ".venv/mpi")).absolute()
ALL_FLAVOURS: tuple[FlavourId, ...] = get_args(FlavourId)


@cache
def installation(flavour: FlavourId) -> Installation:
    """The MPI of that flavour below `ROOTS`. Without one the test fails if `ROOTS` was named, and else is skipped."""
    found = FLAVOURS[flavour].search(ROOTS / flavour).installation
    if found is None:
        end = pytest.fail if "GLMPATCH_MPI_ROOTS" in os.environ else pytest.skip
        end(f"no {flavour} in {ROOTS / flavour}; `make test` installs it")
    return found


_adopted: dict[FlavourId, Path] = {}


def adopt_backend(flavour: FlavourId, site: Path) -> None:
    """Spare the tests a build: a copy of the backend that was built and installed into `site` is as good."""
    folder = _folder_for(flavour)
    for part in site.glob("glmpatch_mpi*"):
        shutil.copytree(part, folder / part.name)
    _adopted[flavour] = folder


@cache
def backend_folder(flavour: FlavourId) -> Path:
    """A folder for PYTHONPATH with the backend in it, built once for all tests, or `$GLMPATCH_BACKENDS/flavour`."""
    if built := os.environ.get("GLMPATCH_BACKENDS"):
        return Path(built) / flavour
    if flavour in _adopted:
        return _adopted[flavour]
    folder = _folder_for(flavour)
    options = BackendOptions(flavour, mpi_root=installation(flavour).root, wheel_dir=folder / "dist")
    wheel = build_backend(options, lambda _event: None).wheel
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _folder_for(flavour: FlavourId) -> Path:
    """A folder that is gone when the tests are done."""
    folder = Path(mkdtemp(prefix=f"glmpatch-{flavour}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _sanitizers() -> dict[str, str]:
    """With GLMPATCH_SANITIZE=1 the backend is built with the sanitizers of the compiler, which the ranks then need."""
    compiler = find_compiler()
    return sanitizer_environment(compiler) if sanitize() and compiler else {}


@dataclass(frozen=True)
class Finished:
    """What a job left: the exit code of mpirun, and all that it and the ranks printed."""

    code: int
    output: str


def run_ranks(
    flavour: FlavourId,
    ranks: int,
    *command: str | Path,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run `python COMMAND...` as so many ranks. Fails the test if it is not done after `timeout` seconds."""
    mpi = installation(flavour)
    paths = [str(backend_folder(flavour)), str(Path.cwd())]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        **_sanitizers(),
        **(env or {}),
    }
    with subprocess.Popen(
        mpi.launch(ranks, [sys.executable, *map(str, command)]),
        env=mpi.environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        output = output_of(process, f"{flavour}, {ranks} ranks", timeout)
    return Finished(process.returncode, output)


def output_of(process: subprocess.Popen[str], what: str, timeout: float) -> str:
    """All that a process prints to its end. Fails the test, and ends its group, if that takes more seconds."""
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{what}: not done after {timeout} s\n{output}")


def check_ranks(flavour: FlavourId, ranks: int, *command: str | Path, **options: float | Mapping[str, str]) -> str:
    """`run_ranks` for a job that must succeed. Returns its output."""
    finished = run_ranks(flavour, ranks, *command, **options)  # type: ignore[arg-type]
    assert finished.code == 0, f"{flavour}, {ranks} ranks: exit code {finished.code}\n{finished.output}"
    return finished.output
