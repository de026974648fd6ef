"""How the ranks of one host are put on the cores of a placement."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from glmpatch.machine.placement import Placement

# Stands for the path of the rankfile in the options of a pinning.
RANKFILE = "{rankfile}"


@dataclass(frozen=True, slots=True)
class Pinning:
    """What makes an MPI put the ranks of one host on the cores of a placement, on each host of several.

    Attributes:
        options: Of `mpirun`. `RANKFILE` in one of them stands for the path of the rankfile.
        environment: What `mpirun` must have in its environment.
        without: Variables of the user's that `mpirun` must not have: they would go before these options.
        slots: What the rankfile says of each local rank behind `slot=`, by rank; empty if the MPI needs no rankfile.
    """

    options: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()

    def rankfile(self) -> str:
        """The rankfile for this host alone.

        For several, the ranks go on, host by host: by the names that the launcher is told, or `+n0`, `+n1` of what a
        scheduler gave. Open MPI 4 knows the latter under a scheduler alone.
        """
        return "".join(f"rank {rank}=localhost slot={slot}\n" for rank, slot in enumerate(self.slots))

    def words(self, rankfile: str) -> list[str]:
        """The options, with the path of the rankfile."""
        return [option.replace(RANKFILE, rankfile) for option in self.options]

    def shell_words(self, rankfile: str) -> list[str]:
        """The options, quoted for a shell, with an expression of the shell for the path: `"$rankfile"`."""
        return [
            rankfile.join(shlex.quote(part) if part else "" for part in option.split(RANKFILE))
            for option in self.options
        ]


def masks(placement: Placement) -> Iterator[str]:
    """The CPUs of each rank as bits, by rank: `0xff00`."""
    return (hex(sum(1 << cpu for cpu in seat.cpus)) for seat in placement.seats)


def srun_binding(placement: Placement) -> str:
    """The option of Slurm's `srun` that puts the ranks of each host on the cores of a placement.

    The variables and options of an MPI do not act there: `srun` starts the ranks itself.
    """
    return f"--cpu-bind=mask_cpu:{','.join(masks(placement))}"
