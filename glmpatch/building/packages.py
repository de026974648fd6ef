"""Installs packages into this environment with pip, and knows beforehand whether it can."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from glmpatch.assets import asset_folder
from glmpatch.building.problem import Problem, pip
from glmpatch.errors import EnvironmentLacksError
from glmpatch.locking import locked
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.process import CommandFailedError, stream

_LOCK = ".glmpatch-mpi.lock"
# What pip takes for a yes in its variables.
_YES = {"1", "on", "t", "true", "y", "yes"}
# Every MPI has these, and one that others' are written over is broken.
_FILES = ("bin/mpirun", "bin/mpicxx", "include/mpi.h")


class _Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    packages: list[str]
    cmake: dict[str, str]


def mpi_packages(flavour: FlavourId) -> list[str]:
    """The packages that hold all of an MPI, as `build/mpi.toml` pins them: `["mpich==5.0.2"]`."""
    return _pins()[flavour].packages


def cmake_variables(flavour: FlavourId, root: Path) -> dict[str, str]:
    """What tells CMake's FindMPI that the MPI is in `root`, besides PATH."""
    return {name: value.format(root=root) for name, value in _pins()[flavour].cmake.items()}


def install(what: Sequence[str | Path], *, local: bool = False, hint: str) -> None:
    """Install packages into this environment, again if they are there: files of theirs may be gone.

    Args:
        what: Requirements or wheel files.
        local: Install just these files, without an index, without what they depend on.
        hint: What to do if it fails.

    Raises:
        EnvironmentLacksError: pip failed.
    """
    options = ["--quiet", "--disable-pip-version-check", "--force-reinstall"]
    options += ["--no-deps", "--no-index"] if local else []
    try:
        for _ in stream([sys.executable, "-I", "-m", "pip", "install", *options, *map(str, what)]):
            pass
    except CommandFailedError as error:
        raise EnvironmentLacksError(f"pip could not install: {error.message}", hint=hint) from error


def alone_in(environment: Path, on_wait: Callable[[], None]) -> AbstractContextManager[bool]:
    """Keep other builds out of an environment. Where nothing can be written, or is not there yet, none can install.

    Args:
        environment: The environment.
        on_wait: Called once if another build is at work, before waiting for it.
    """
    if not os.access(environment, os.W_OK):
        return nullcontext(enter_result=False)
    return locked(environment / _LOCK, on_wait)


def why_pip_cannot() -> Iterator[Problem]:
    """What keeps pip from installing into this environment."""
    apart = "make a virtual environment (python3 -m venv DIR) and install torch and glmpatch there"
    # Not importlib.util.find_spec: setuptools listens to that, and takes its distutils back when pip is asked for.
    if PathFinder.find_spec("pip") is None:
        yield Problem(f"the environment {sys.prefix} has no pip", f"{sys.executable} -m ensurepip")
    purelib, stdlib = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))
    allowed = os.environ.get("PIP_BREAK_SYSTEM_PACKAGES", "").lower() in _YES
    if sys.prefix == sys.base_prefix and (stdlib / "EXTERNALLY-MANAGED").exists() and not allowed:
        yield Problem("this Python is the system's, which lets nobody but its own packages in", apart)
    elif not os.access(purelib, os.W_OK):
        yield Problem(f"{purelib} cannot be written to", apart)


def other_mpis(flavour: FlavourId) -> Iterator[Problem]:
    """Other MPIs in this environment, whose files would be overwritten: packages first, then what is no package's."""
    title, elsewhere = FLAVOURS[flavour].title, "use another environment, or name an MPI elsewhere with --mpi-root"
    owned: set[Path] = set()
    for other in FLAVOURS:
        for package in _installed(other):
            owned.update(Path(str(file.locate())).resolve() for file in package.files or () if file.match("mpi*"))
            if other != flavour:
                name = package.metadata["Name"]
                yield Problem(
                    f"this environment holds {name} {package.version}, whose files have the names of {title}'s",
                    f"{pip(f'uninstall {name}')}, or {elsewhere}",
                )
    for file in (Path(sys.prefix, name) for name in _FILES):
        if file.exists() and file.resolve() not in owned:
            yield Problem(f"{file} is of an MPI that pip did not install, and {title} has such a file, too", elsewhere)
            return


def _installed(flavour: FlavourId) -> Iterator[Distribution]:
    """Those of the packages of an MPI that this environment has."""
    for package in mpi_packages(flavour):
        with suppress(PackageNotFoundError):
            yield distribution(package.partition("==")[0])


def _pins() -> dict[FlavourId, _Pin]:
    return msgspec.toml.decode((asset_folder("build") / "mpi.toml").read_bytes(), type=dict[FlavourId, _Pin])
