"""Installs packages into this environment with pip, and knows beforehand whether it can."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from glmpatch.assets import asset_folder
from glmpatch.building.problem import Problem
from glmpatch.errors import EnvironmentLacksError
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.process import CommandFailedError, stream


class _Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    packages: list[str]


def mpi_packages(flavour: FlavourId) -> list[str]:
    """The packages that hold all of an MPI, as `build/mpi.toml` pins them: `["mpich==5.0.2"]`."""
    return _pins()[flavour].packages


def install(what: Sequence[str | Path], *, local: bool = False, hint: str) -> None:
    """Install packages into this environment.

    Args:
        what: Requirements or wheel files.
        local: Install just these files, again if need be: without an index, without what they depend on.
        hint: What to do if it fails.

    Raises:
        EnvironmentLacksError: pip failed.
    """
    options = ["--no-deps", "--no-index", "--force-reinstall"] if local else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options]
    try:
        for _ in stream([*command, *map(str, what)]):
            pass
    except CommandFailedError as error:
        raise EnvironmentLacksError(f"pip could not install: {error.message}", hint=hint) from error


def why_pip_cannot() -> Iterator[Problem]:
    """What keeps pip from installing into this environment."""
    apart = "make a virtual environment (python3 -m venv DIR) and install torch and glmpatch there"
    # Not importlib.util.find_spec: setuptools listens to that, and takes its distutils back when pip is asked for.
    if PathFinder.find_spec("pip") is None:
        yield Problem(f"the environment {sys.prefix} has no pip", f"{sys.executable} -m ensurepip")
    purelib, stdlib = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))
    if sys.prefix == sys.base_prefix and (stdlib / "EXTERNALLY-MANAGED").exists():
        yield Problem("this Python is the system's, which lets nobody but its own packages in", apart)
    elif not os.access(purelib, os.W_OK):
        yield Problem(f"{purelib} cannot be written to", apart)


def other_mpis(flavour: FlavourId) -> Iterator[Problem]:
    """MPIs of other flavours in this environment, whose files would be overwritten: all have a `bin/mpirun`."""
    for other, pin in _pins().items():
        for package in pin.packages if other != flavour else ():
            name = package.partition("==")[0]
            try:
                found = version(name)
            except PackageNotFoundError:
                continue
            yield Problem(
                f"this environment holds {name} {found}, whose files have the names of {FLAVOURS[flavour].title}'s",
                f"pip uninstall {name}, or use another environment, or name an MPI elsewhere with --mpi-root",
            )


def _pins() -> dict[FlavourId, _Pin]:
    return msgspec.toml.decode((asset_folder("build") / "mpi.toml").read_bytes(), type=dict[FlavourId, _Pin])
