"""What a launch script is written from: a machine, where the ranks go on it, and the MPI that starts them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from glmpatch.building.record import BackendInfo, installed_backend
from glmpatch.errors import EnvironmentLacksError
from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology
from glmpatch.mpi import FLAVOURS, Flavour, FlavourId
from glmpatch.mpi.flavour import Installation


@dataclass(frozen=True, slots=True)
class Mpi:
    """What starts the ranks.

    Attributes:
        flavour: Which MPI.
        installation: The one of this machine; None if mpirun is looked up when the script runs.
    """

    flavour: Flavour
    installation: Installation | None

    @property
    def title(self) -> str:
        """The MPI, and its version if it is known."""
        version = f" {self.installation.version}" if self.installation else ", as found at launch"
        return f"{self.flavour.title}{version}"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All that a launch script says.

    Attributes:
        mpi: What starts the ranks.
        topology: The machine: each of the hosts.
        placement: The ranks of each host.
        nodes: How many hosts; None for as many as the host file names.
        hostfile: A file with their names; None for this host, or those that Slurm gives.
        slurm: Whether it is a job of Slurm's.
        python_folder: Where the `python3` of the training is.
        writer: The command that writes the script.
    """

    mpi: Mpi
    topology: Topology
    placement: Placement
    nodes: int | None = 1
    hostfile: Path | None = None
    slurm: bool = False
    python_folder: Path = Path(sys.executable).parent
    writer: Literal["launch", "apply"] = "launch"


def choose_mpi(asked: FlavourId | None, root: Path | None, *, here: bool) -> Mpi:
    """The MPI to launch with: the one that the installed backend was built for, else the first that is found.

    Args:
        asked: The flavour; None for any.
        root: The folder that holds its `bin/mpirun`; None to look for it.
        here: Whether the script is for this machine: else the MPI need not be on it.

    Raises:
        EnvironmentLacksError: It is not on this machine.
    """
    built = installed_backend()
    passed_over: list[str] = []
    if built and root is None and asked in {None, built.flavour} and (found := find_built_for(built)):
        return Mpi(found.flavour, found)
    ids = [asked] if asked else sorted(get_args(FlavourId), key=lambda each: built is None or each != built.flavour)
    for each in ids:
        search = FLAVOURS[each].search(root)
        if search.installation:
            return Mpi(search.installation.flavour, search.installation)
        passed_over += search.passed_over
    if here or root:
        titles = " or ".join(FLAVOURS[each].title for each in ids)
        reasons = "".join(f"\n    {reason}" for reason in passed_over)
        raise EnvironmentLacksError(
            f"no {titles} was found{f' in {root}' if root else ' on this machine'}{reasons}",
            hint=f"glmpatch build-backend --mpi {ids[0]} installs it, or name its folder with --mpi-root",
        )
    return Mpi(FLAVOURS[ids[0]], None)


def find_built_for(built: BackendInfo) -> Installation | None:
    """The MPI that a backend was built for, where it was then or elsewhere. The backend loads with no other."""
    for root in (Path(built.mpi_root), None):
        found = FLAVOURS[built.flavour].search(root).installation
        if found and found.identity == built.identity:
            return found
    return None
