"""The machines that have a name: described in `build/machines.toml`."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Annotated, Literal

import msgspec

from glmpatch.assets import asset_folder
from glmpatch.errors import UsageError
from glmpatch.machine.topology import Core, HbmMode, NumaNode, Topology

_GIB = 1 << 30

_Count = Annotated[int, msgspec.Meta(ge=1)]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A regular machine: all packages are alike, and so are all clusters.

    Attributes:
        model: The name of the CPU.
        packages: How many.
        clusters: How many a package has: 1, or with sub-NUMA clustering 2 or 4.
        cores: How many a cluster has.
        threads: How many hardware threads a core has.
        ddr: GiB of DDR a cluster.
        isa: The instructions that it has, of `ISA_FLAGS`.
        distances: Of a cluster's DDR to that of another one in its package, and in another package.
        hbm: How the HBM is used.
        hbm_size: GiB of HBM a cluster.
        hbm_distances: In flat mode, of a cluster to its own HBM, to other HBM in its package, and in another package.
        sources: Where this can be read.
    """

    model: str
    packages: _Count
    clusters: _Count
    cores: _Count
    threads: Literal[1, 2]
    ddr: int
    isa: tuple[str, ...]
    distances: tuple[int, int] = (12, 21)
    hbm: HbmMode = "none"
    hbm_size: int = 0
    hbm_distances: tuple[int, int, int] = (13, 14, 23)
    sources: tuple[str, ...] = ()

    def topology(self, source: str) -> Topology:
        """The machine, with the CPUs numbered as Linux does: the first threads of all cores, then the second ones."""
        count = self.packages * self.clusters
        cores = [
            Core(
                package=cluster // self.clusters,
                node=cluster,
                cpus=tuple(count * self.cores * thread + self.cores * cluster + core for thread in range(self.threads)),
            )
            for cluster in range(count)
            for core in range(self.cores)
        ]
        flat = self.hbm == "flat"
        numbers = range(count * 2 if flat else count)
        nodes = tuple(
            NumaNode(
                number=number,
                cpus=tuple(sorted(cpu for core in cores if core.node == number for cpu in core.cpus)),
                memory=_GIB * (self.hbm_size if number >= count or self.hbm == "only" else self.ddr),
                kind="hbm" if number >= count or self.hbm == "only" else "ddr",
                distances=tuple(self._distance(number, other) for other in numbers),
                cache=_GIB * self.hbm_size if self.hbm == "cache" else 0,
            )
            for number in numbers
        )
        return Topology(
            source=source,
            model=self.model,
            cores=tuple(cores),
            nodes=nodes,
            isa=self.isa,
            allowed_cpus=tuple(range(len(cores) * self.threads)),
            allowed_nodes=tuple(numbers),
        )

    def _distance(self, number: int, other: int) -> int:
        if number == other:
            return 10
        count = self.packages * self.clusters
        same, far = self.distances
        own = same
        # The nodes of HBM come after all clusters, in the same order.
        if max(number, other) >= count:
            own, same, far = self.hbm_distances
        here, there = number % count, other % count
        if here == there:
            return own
        return same if here // self.clusters == there // self.clusters else far


@cache
def machines() -> dict[str, Machine]:
    """The presets, by name."""
    return msgspec.toml.decode((asset_folder("build") / "machines.toml").read_bytes(), type=dict[str, Machine])


def names() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(machines())


def load(name: str) -> Topology:
    """The preset of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in machines():
        raise UsageError(f"{name}: there is no preset of that name", hint=hint(name))
    return machines()[name].topology(f"preset {name}")


def hint(name: str) -> str:
    """Which presets there are, and which one may be meant."""
    near = difflib.get_close_matches(name, names(), n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}the presets are {', '.join(names())}; else give a file that `lstopo FILE.xml` made"
