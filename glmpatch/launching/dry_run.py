"""How an MPI is asked where it would put ranks on a machine, and what its answer means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from glmpatch.machine.topology import Topology, parse_cpu_list
from glmpatch.mpi.flavour import Installation
from glmpatch.mpi.openmpi import in_order, is_old

# The machine, in the folder that the MPI is asked in.
XML = "topology.xml"


@dataclass(frozen=True, slots=True)
class DryRun:
    """How one MPI is asked.

    Attributes:
        options: Of `mpirun`.
        environment: What it must have in its environment.
        program: What it starts as each rank, on this machine, if it starts any.
        fails: Whether there is no such program, and the MPI says so in the end.
        said: Matches what it says of a rank; the groups are the rank and its CPUs.
        read: Reads those CPUs.
    """

    options: tuple[str, ...]
    environment: Mapping[str, str]
    program: tuple[str, ...]
    said: re.Pattern[str]
    read: Callable[[str, Topology], frozenset[int]]
    fails: bool = False

    def answer(self, output: str, topology: Topology) -> dict[int, frozenset[int]]:
        """The CPUs of each rank that the MPI tells of.

        Raises:
            ValueError: What it says of a rank makes no sense.
        """
        answer: dict[int, frozenset[int]] = {}
        for rank, said in self.said.findall(output):
            cpus = self.read(said, topology)
            if answer.setdefault(int(rank), cpus) != cpus:
                raise ValueError(f"two places for rank {rank}")
        return answer


def dry_run(installation: Installation) -> DryRun:
    """How this MPI is asked."""
    if installation.flavour.id == "openmpi":
        return _OPENMPI_4 if is_old(installation.version) else _OPENMPI_5
    return _INTEL if installation.flavour.id == "intel" else _MPICH


def _read_list(cpus: str, _: Topology) -> frozenset[int]:
    return frozenset(parse_cpu_list(cpus))


def _read_bits(bits: str, topology: Topology) -> frozenset[int]:
    """A digit each CPU, the first one first, and as many as there are CPUs, though some numbers may be left out."""
    if len(bits) <= max(_all_cpus(topology)):
        raise ValueError(f"only the CPUs below {len(bits)}")
    return frozenset(cpu for cpu, bit in enumerate(bits) if bit == "1")


def _read_binding(binding: str, topology: Topology) -> frozenset[int]:
    """`package[0][hwt:L0-7,64-71] package[1][hwt:L32]`: the L is wrong, these are the numbers of the kernel."""
    if binding == "UNBOUND":
        return frozenset(_all_cpus(topology))
    between = re.split(r"package\[\d+\]\[hwt:L([\d,-]+)\]", binding)
    if "".join(between[::2]).strip():
        raise ValueError(f"{binding!r} of a rank")
    return frozenset(cpu for cpus in between[1::2] for cpu in parse_cpu_list(cpus))


def _read_drawing(bound: str, topology: Topology) -> frozenset[int]:
    """`[BB/../..][../../..]`: packages of cores of hardware threads, in the order of hwloc, after a colon."""
    every = _all_cpus(topology)
    if bound in {"N/A", "UNBOUND"}:
        return frozenset(every)
    threads = re.sub(r"[][/]", "", bound.rpartition(":")[2])
    if len(threads) != len(every) or threads.strip("B."):
        raise ValueError(f"{bound!r} of a rank")
    return frozenset(cpu for cpu, thread in zip(every, threads, strict=True) if thread == "B")


def _all_cpus(topology: Topology) -> list[int]:
    return [cpu for core in in_order(topology) for cpu in core.cpus]


_HWLOC = {"HWLOC_XMLFILE": XML}
_INTEL = DryRun(
    options=("-prepend-rank",),
    environment=_HWLOC,
    program=("printenv", "I_MPI_PIN_INFO"),
    said=re.compile(r"^\[(\d+)\] ([\d,-]+)$", re.MULTILINE),
    read=_read_list,
)
_MPICH = DryRun(
    options=(),
    environment={**_HWLOC, "HYDRA_TOPO_DEBUG": "1"},
    program=("true",),
    said=re.compile(r"^process (\d+) binding: ([01]+)$", re.MULTILINE),
    read=_read_bits,
)
_OPENMPI_5 = DryRun(
    options=("--prtemca", "hwloc_use_topo_file", XML, "--rtos", "donotlaunch", "--display", "map"),
    environment={},
    program=("true",),
    said=re.compile(r"Data for proc: \[\S+,(\d+)\](?:(?!Data for proc).)*?Binding: ([^\n]*)", re.DOTALL),
    read=_read_binding,
)
# It has a parameter for a topology, too, and then does not tell the bindings of a rankfile. Ranks that end at once, as
# those of `true`, may make it wait for ever; the map comes before it looks for the program.
_OPENMPI_4 = DryRun(
    options=("--display-map",),
    environment=_HWLOC,
    program=("./no-program",),
    said=re.compile(r"Process rank: (\d+) Bound: (.*)$", re.MULTILINE),
    read=_read_drawing,
    fails=True,
)
