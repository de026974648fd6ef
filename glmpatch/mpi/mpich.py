"""MPICH: from a distribution, or from the package `mpich`."""

from __future__ import annotations

import re
from typing import ClassVar

from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology
from glmpatch.mpi.flavour import Flavour, FlavourId
from glmpatch.mpi.pinning import Pinning


class Mpich(Flavour):
    """MPICH, launched by its Hydra."""

    id: ClassVar[FlavourId] = "mpich"
    title: ClassVar[str] = "MPICH"
    identity: ClassVar[re.Pattern[str]] = re.compile(r"MPICH Version: (?P<version>\d[\w.]*)")
    launcher: ClassVar[re.Pattern[str]] = re.compile(r"HYDRA build details")
    suffix: ClassVar[str] = ".mpich"

    def pinning(self, topology: Topology, placement: Placement, version: str) -> Pinning:  # noqa: ARG002
        """A list of CPUs for each rank."""
        cpus = ("+".join(map(str, seat.cpus)) for seat in placement.seats)
        return Pinning(("-bind-to", f"user:{','.join(cpus)}"))

    def remote_shell(self, program: str, version: str) -> tuple[str, ...]:  # noqa: ARG002
        """The launcher is ssh, whatever program it is."""
        return ("-launcher", "ssh", "-launcher-exec", program)
