"""Compares a placement with where the MPI itself would put the ranks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

from glmpatch.errors import EnvironmentLacksError
from glmpatch.launching.dry_run import XML, DryRun, dry_run
from glmpatch.machine import hwloc
from glmpatch.machine.placement import Placement, Seat
from glmpatch.machine.topology import Topology
from glmpatch.mpi.flavour import Installation
from glmpatch.mpi.pinning import Pinning
from glmpatch.process import CommandFailedError, SilentError, stream

# A dry run takes a fraction of a second.
_SILENCE = 60
_RANKFILE = "rankfile"


@dataclass(frozen=True, slots=True)
class RankCheck:
    """Where one rank is to go, and where it would.

    Attributes:
        rank: Its local rank, from 0.
        expected: The CPUs that the placement gives it, one a core, ascending.
        cpus: The CPUs that the MPI would give it, ascending.
        agrees: Whether those are of the same cores, on whichever hardware threads of them.
    """

    rank: int
    expected: tuple[int, ...]
    cpus: tuple[int, ...]
    agrees: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What an MPI says of a placement.

    Attributes:
        mpi: The MPI and its version.
        ranks: By rank.
    """

    mpi: str
    ranks: tuple[RankCheck, ...]

    @property
    def agrees(self) -> bool:
        """Whether each rank would go where it is to go."""
        return all(rank.agrees for rank in self.ranks)


def verify(
    installation: Installation, topology: Topology, placement: Placement, *, xml: bytes | None = None
) -> Verification:
    """Ask an MPI where it would put the ranks of `placement` on that machine. Nothing runs there.

    Args:
        installation: The MPI.
        topology: The machine.
        placement: Where the ranks are to go.
        xml: What hwloc wrote of the machine, if the topology was read from that; None to write it.

    Raises:
        EnvironmentLacksError: The MPI refuses, or its answer cannot be understood. The message has what it said.
        UsageError: The MPI cannot be told to put the ranks there.
    """
    asked = dry_run(installation)
    title = f"{installation.flavour.title} {installation.version}"
    shown = _unrestricted(topology)
    if xml is None or shown != topology:
        xml = hwloc.render(shown).encode()
    pinning = installation.flavour.pinning(topology, placement, installation.version)
    try:
        output = "\n".join(_ask(installation, asked, pinning, len(placement.seats), xml))
    except (CommandFailedError, SilentError) as error:
        raise EnvironmentLacksError(f"{title} does not tell where it would put the ranks: {error.message}") from error
    try:
        said = asked.answer(output, topology)
        return Verification(title, tuple(_check(seat, said[seat.rank], topology) for seat in placement.seats))
    except (KeyError, ValueError) as error:
        what = f"nothing of rank {error}" if isinstance(error, KeyError) else str(error)
        raise EnvironmentLacksError(
            f"{title} was asked where it would put the ranks, and tells {what}:\n{indent(output, '    ')}"
        ) from error


def _ask(installation: Installation, asked: DryRun, pinning: Pinning, ranks: int, xml: bytes) -> Iterator[str]:
    """What the MPI prints, line by line."""
    with TemporaryDirectory(prefix="glmpatch-") as name:
        folder = Path(name)
        (folder / XML).write_bytes(xml)
        (folder / _RANKFILE).write_text(pinning.rankfile())
        options = [*asked.options, *pinning.words(_RANKFILE), "-n", str(ranks)]
        # What a user has told hwloc is of another machine.
        base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HWLOC_") and name not in pinning.without
        }
        environment = {**installation.environment(base), **pinning.environment, **asked.environment}
        command = [str(installation.launcher), *options, *asked.program]
        try:
            yield from stream(command, cwd=folder, env=environment, silence=_SILENCE)
        except CommandFailedError:
            if not asked.fails:
                raise


def _check(seat: Seat, cpus: Iterable[int], topology: Topology) -> RankCheck:
    core_of = {cpu: core for core in topology.cores for cpu in core.cpus}
    agrees = {core_of.get(cpu) for cpu in cpus} == {core_of[cpu] for cpu in seat.cpus}
    return RankCheck(seat.rank, seat.cpus, tuple(sorted(cpus)), agrees)


def _unrestricted(topology: Topology) -> Topology:
    """The same machine, all of which may be used: Open MPI counts all CPUs, MPICH tells of as many as it sees."""
    return replace(topology, allowed_cpus=tuple(sorted(cpu for core in topology.cores for cpu in core.cpus)))
