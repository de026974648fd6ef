"""What a machine has (packages, NUMA nodes, cores, hardware threads, memory, instructions), and what of it is ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

MemoryKind: TypeAlias = Literal["ddr", "hbm", "other"]
HbmMode: TypeAlias = Literal["none", "only", "flat", "cache"]

# The instructions that decide how fast a dtype is, as /proc/cpuinfo spells them.
ISA_FLAGS = ("amx_tile", "amx_bf16", "avx512_bf16", "avx512f", "avx2")

# More than any machine has of CPUs or of NUMA nodes.
MOST_NUMBER = 1 << 16


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core with at least one CPU online.

    Attributes:
        package: The number of its package (socket).
        node: The number of the NUMA node that its CPUs are in.
        cpus: Its CPUs (hardware threads) that are online, as the kernel numbers them, ascending.
    """

    package: int
    node: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node: memory, and mostly the CPUs that are nearest to it.

    Attributes:
        number: As the kernel numbers it.
        cpus: Its CPUs that are online, ascending; empty for memory alone.
        memory: Its bytes of memory.
        kind: `hbm` on the package, `ddr`, or `other` for what is slower than that: CXL, persistent memory.
        distances: To every node of the topology, in the order of `Topology.nodes`; 10 is to itself.
        cache: The bytes of the cache on the memory's side: of HBM in cache mode. 0 without.
    """

    number: int
    cpus: tuple[int, ...]
    memory: int
    kind: MemoryKind
    distances: tuple[int, ...]
    cache: int = 0


@dataclass(frozen=True, slots=True)
class Topology:
    """A machine.

    Attributes:
        source: Where this is from, for people: `this machine`, `node.xml`, `preset max9462-cache`.
        model: The name of the CPU, or "" if the source does not tell.
        cores: By package, then by first CPU.
        nodes: By number.
        isa: Those of `ISA_FLAGS` that the CPUs have, in that order; None if the source does not tell.
        allowed_cpus: The CPUs that we may use, ascending: those of the cpuset that are online.
        allowed_nodes: The numbers of the NUMA nodes whose memory we may use, ascending.
        cpu_quota: How many CPUs' time the control group grants; None without a limit.
        memory_limit: The bytes of memory that the control group grants; None without a limit.
        notes: What could not be read and was assumed, a sentence each.
    """

    source: str
    model: str
    cores: tuple[Core, ...]
    nodes: tuple[NumaNode, ...]
    isa: tuple[str, ...] | None
    allowed_cpus: tuple[int, ...]
    allowed_nodes: tuple[int, ...]
    cpu_quota: float | None = None
    memory_limit: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[int, ...]:
        """The numbers of the packages, ascending."""
        return tuple(sorted({core.package for core in self.cores}))

    @property
    def clusters(self) -> tuple[NumaNode, ...]:
        """The nodes with CPUs: with sub-NUMA clustering several a package, else one."""
        return tuple(node for node in self.nodes if node.cpus)

    @property
    def snc(self) -> int:
        """The most clusters that a package has: 1 where sub-NUMA clustering is off."""
        pairs = {(core.package, core.node) for core in self.cores}
        return max(sum(package == each for each, _ in pairs) for package in self.packages)

    @property
    def threads_per_core(self) -> int:
        """The most CPUs that a core has online: 2 with hyperthreading."""
        return max(len(core.cpus) for core in self.cores)

    @property
    def hbm_mode(self) -> HbmMode:
        """How the memory on the package is used: as the only one, beside DDR, as its cache, or there is none."""
        if any(node.cache for node in self.clusters):
            return "cache"
        if not any(node.kind == "hbm" for node in self.nodes):
            return "none"
        return "flat" if any(node.kind == "ddr" for node in self.nodes) else "only"

    @property
    def usable_cores(self) -> tuple[Core, ...]:
        """The cores that we may use, each with those of its CPUs that we may use."""
        allowed = set(self.allowed_cpus)
        cores = (replace(core, cpus=tuple(cpu for cpu in core.cpus if cpu in allowed)) for core in self.cores)
        return tuple(core for core in cores if core.cpus)

    def node(self, number: int) -> NumaNode:
        """The node of that number."""
        return next(node for node in self.nodes if node.number == number)

    def nearest_hbm(self, number: int) -> NumaNode | None:
        """The node of HBM that is nearest to the node of that number, of those that we may use; None without any."""
        distances = dict(zip((node.number for node in self.nodes), self.node(number).distances, strict=True))
        hbm = [node for node in self.nodes if node.kind == "hbm" and node.number in self.allowed_nodes]
        return min(hbm, key=lambda node: (distances[node.number], node.number), default=None)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Read a list of the kernel's, `0-3,8,10-11`, ascending.

    Raises:
        ValueError: It is not one.
    """
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        end = int(last or first) + 1
        if end > MOST_NUMBER:
            raise ValueError(f"{text[:40]!r} has numbers that no machine has")
        numbers.update(range(int(first), end))
    return tuple(sorted(numbers))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Write CPUs as the kernel does: `0-3,8,10-11`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
