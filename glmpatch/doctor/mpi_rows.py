"""The MPI that starts the ranks, and the one that is on PATH."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glmpatch.building.packages import mpi_packages
from glmpatch.building.problem import pip
from glmpatch.building.record import BackendInfo
from glmpatch.doctor.row import Check, Row
from glmpatch.doctor.torch_report import TorchReport
from glmpatch.doctor.tree import PatchedTree
from glmpatch.launching.plan import find_built_for
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.mpi.flavour import Installation

_MPI = Check("mpi", "MPI")


@dataclass(frozen=True, slots=True)
class FoundMpis:
    """The MPIs of this machine.

    Attributes:
        built_for: The one that the installed backend was built for; None if it is gone, or there is no backend.
        others: The first of each flavour that is found, where there is no backend.
        on_path: The mpirun on PATH.
    """

    built_for: Installation | None
    others: Mapping[FlavourId, Installation]
    on_path: Path | None


def find_mpis(built: BackendInfo | None) -> FoundMpis:
    """Look for them. Starts each once or twice."""
    program = shutil.which("mpirun")
    on_path = Path(program) if program else None
    if built:
        return FoundMpis(find_built_for(built), {}, on_path)
    searches = {id_: flavour.search().installation for id_, flavour in FLAVOURS.items()}
    return FoundMpis(None, {id_: found for id_, found in searches.items() if found}, on_path)


def mpi(report: TorchReport, built: BackendInfo | None, found: FoundMpis, tree: PatchedTree | None) -> Row:
    """Whether the MPI that starts the ranks is the one that the backend loads."""
    if report.own:
        return _own(report, found)
    if built is None:
        titles = [f"{each.flavour.title} {each.version} in {each.root}" for each in found.others.values()]
        return _MPI.passes("; ".join(titles) or "none is found; build-backend installs one")
    if found.built_for is None:
        gone = f"{built.mpi} {built.mpi_version} in {built.mpi_root}, which the backend is for, is gone or changed"
        if tree and tree.options.backend != "mpi":
            return _MPI.passes(f"{gone}; not needed: the tree is patched for {tree.options.backend}")
        return _MPI.fails(gone, f"glmpatch build-backend --mpi {built.flavour}")
    return _same_on_path(found.built_for, found.on_path)


def _own(report: TorchReport, found: FoundMpis) -> Row:
    """PyTorch was built with MPI."""
    for flavour in FLAVOURS.values():
        match = flavour.identity.match(report.library)
        if match is None:
            continue
        installation = found.others.get(flavour.id)
        if installation is None:
            return _MPI.fails(
                f"PyTorch was built with {flavour.title} {match['version']}, and its mpirun is not found",
                pip(f"install {shlex.join(mpi_packages(flavour.id))}"),
            )
        if installation.identity != match[0]:
            return _MPI.warns(
                f"PyTorch has {flavour.title} {match['version']}, and mpirun is of {installation.version} in"
                f" {installation.root}",
                f"glmpatch launch --mpi {flavour.id} --mpi-root FOLDER  # that of the same version",
            )
        return _same_on_path(installation, found.on_path)
    return _MPI.passes("unknown: the MPI that PyTorch was built with does not say which it is")


def _same_on_path(mpi: Installation, on_path: Path | None) -> Row:
    """The launch script names its mpirun; who types it gets the one on PATH."""
    evidence = f"{mpi.flavour.title} {mpi.version} in {mpi.root}, which the backend is for"
    if on_path is None:
        return _MPI.passes(f"{evidence}; mpirun is not on PATH, and the launch script does not need it there")
    if on_path.resolve() == mpi.launcher.resolve():
        return _MPI.passes(f"{evidence}, and mpirun on PATH is its own")
    return _MPI.warns(
        f"{evidence}; mpirun on PATH is {on_path}: with it, each rank would train for itself",
        f'export PATH={shlex.quote(str(mpi.root / "bin"))}:"$PATH"',
    )
