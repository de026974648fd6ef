"""Machines to test with."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from glmpatch.machine.presets import Machine
from glmpatch.machine.topology import ISA_FLAGS, HbmMode, MemoryKind, NumaNode, Topology

GIB = 1 << 30
XEON = "Intel(R) Xeon(R) Platinum 8480+"
XEON_MAX = "Intel(R) Xeon(R) CPU Max 9462"


def machine(  # noqa: PLR0913 - each has a default that most tests leave
    *,
    packages: int = 2,
    snc: int = 4,
    cores: int = 8,
    ht: bool = True,
    hbm: HbmMode = "none",
    ddr: int = 128,
    isa: tuple[str, ...] = ISA_FLAGS,
) -> Topology:
    """A regular machine, its CPUs numbered as Linux does: the first threads of all cores, then the second ones.

    Args:
        packages: How many.
        snc: The clusters of a package.
        cores: The cores of a cluster.
        ht: Whether each core has two threads.
        hbm: How the 64 GiB of HBM of each package are used.
        ddr: GiB of DDR of a cluster; in the mode "only" there is none.
        isa: Its instructions.
    """
    model = XEON if hbm == "none" else XEON_MAX
    described = Machine(
        model, packages, snc, cores, 2 if ht else 1, ddr, isa, hbm=hbm, hbm_size=0 if hbm == "none" else 64 // snc
    )
    return described.topology("test machine")


def max9462(hbm: HbmMode = "cache") -> Topology:
    """The machine of the recipe: 2 packages of 4 clusters of 8 cores, 2 threads each, and 16 GiB of HBM a cluster."""
    return machine(hbm=hbm)


def allow(topology: Topology, cpus: Iterable[int], nodes: Iterable[int] | None = None) -> Topology:
    """The same machine, of which we may use those CPUs alone, and the memory of those nodes."""
    chosen = topology.allowed_nodes if nodes is None else tuple(sorted(nodes))
    return replace(topology, allowed_cpus=tuple(sorted(cpus)), allowed_nodes=chosen)


def offline(topology: Topology, cpus: Collection[int]) -> Topology:
    """The same machine with those CPUs offline."""
    cores = (replace(core, cpus=_without(core.cpus, cpus)) for core in topology.cores)
    return replace(
        topology,
        cores=tuple(sorted((core for core in cores if core.cpus), key=lambda core: (core.package, core.cpus))),
        nodes=tuple(replace(node, cpus=_without(node.cpus, cpus)) for node in topology.nodes),
        allowed_cpus=_without(topology.allowed_cpus, cpus),
    )


def with_memory_node(topology: Topology, gib: int, distance: int, kind: MemoryKind = "other") -> Topology:
    """The same machine with one more node, of memory alone: an expander, or persistent memory.

    Args:
        topology: The machine.
        gib: GiB of it.
        distance: To the first cluster; the other ones are farther.
        kind: Of what kind it is.
    """
    far = [distance if node.number == 0 else distance + 10 for node in topology.nodes]
    nodes = [replace(node, distances=(*node.distances, far[i])) for i, node in enumerate(topology.nodes)]
    number = nodes[-1].number + 1
    return replace(
        topology,
        nodes=(*nodes, NumaNode(number, (), gib * GIB, kind, (*far, 10))),
        allowed_nodes=(*topology.allowed_nodes, number),
    )


def _without(numbers: Iterable[int], gone: Collection[int]) -> tuple[int, ...]:
    return tuple(number for number in numbers if number not in gone)
