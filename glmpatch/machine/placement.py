"""Where the ranks of one machine go."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from glmpatch.errors import UsageError
from glmpatch.machine.topology import Core, NumaNode, Topology, format_cpu_list
from glmpatch.wording import count

_Groups: TypeAlias = list[list[Core]]


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one rank goes.

    Attributes:
        rank: Its local rank, from 0.
        cores: The cores that are its own, with those of their CPUs that we may use.
        clusters: The numbers of the NUMA nodes that they are in, ascending: one, unless it spans several.
        memory_node: The NUMA node whose memory it prefers; None where it spans several, or may not use its own.
    """

    rank: int
    cores: tuple[Core, ...]
    clusters: tuple[int, ...]
    memory_node: int | None

    @property
    def cpus(self) -> tuple[int, ...]:
        """One CPU of each core, ascending: the rank's threads run on physical cores only."""
        return tuple(sorted(core.cpus[0] for core in self.cores))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the ranks of one machine go. No core belongs to two of them, and each has as many as the others.

    Attributes:
        seats: One for each rank, by rank.
        threads: The threads of each rank: `OMP_NUM_THREADS`.
    """

    seats: tuple[Seat, ...]
    threads: int


def nearest_clusters(topology: Topology, memory: NumaNode) -> tuple[int, ...]:
    """The numbers of the clusters that no other is nearer than to this memory, ascending."""
    at = topology.nodes.index(memory)
    least = min(cluster.distances[at] for cluster in topology.clusters)
    return tuple(cluster.number for cluster in topology.clusters if cluster.distances[at] == least)


@dataclass(frozen=True, slots=True)
class _Demand:
    """What is asked for."""

    ranks: int
    threads: int | None
    reserve_cores: int

    def check(self, topology: Topology, quota: int | None) -> None:
        """Refuse what does not fit, with the arithmetic."""
        usable, busy = len(topology.usable_cores), self.threads or 1
        needed, at_once = self.ranks * (busy + self.reserve_cores), self.ranks * busy
        if needed > usable:
            of = f" of {len(topology.cores)}" if usable < len(topology.cores) else ""
            where = f"CPUs {format_cpu_list(topology.allowed_cpus)} of {topology.source}"
            raise UsageError(
                f"{self._subject()} {needed} cores, {usable}{of} {'is' if usable == 1 else 'are'} usable ({where})",
                hint=self._what_fits(usable, self.reserve_cores),
            )
        if quota and at_once > quota:
            grant = f"the control group grants that of {topology.cpu_quota:g}"
            raise UsageError(
                f"{self._subject()} the time of {at_once} CPUs, {grant}",
                hint=self._what_fits(quota, 0),
            )

    def _what_fits(self, cores: int, reserve_cores: int) -> str:
        """What each option alone would have to be."""
        busy = self.threads or 1
        most = {
            "--ranks": (True, cores // (busy + reserve_cores)),
            "--threads": (self.threads is not None, cores // self.ranks - reserve_cores),
            "--reserve-cores": (reserve_cores > 0, cores // self.ranks - busy),
        }
        fits = [f"{option} {value}" for option, (asked, value) in most.items() if asked and value > 0]
        return f"what fits: {' or '.join(fits)}" if fits else "ask for less of each"

    def _subject(self) -> str:
        parts = [count(self.ranks, "rank")]
        if self.threads or self.reserve_cores:
            parts.append(f"of {count(self.threads or 1, 'thread')}")
        if self.reserve_cores:
            parts.append(f"and {count(self.reserve_cores, 'core')} in reserve each")
        parts.append("needs" if self.ranks == 1 else "need")
        return " ".join(parts)


def place(
    topology: Topology, *, ranks: int | None = None, threads: int | None = None, reserve_cores: int = 0
) -> Placement:
    """Give each rank cores of its own, the same number to all: the slowest rank sets the pace.

    By default there is one rank a cluster. A cluster that has lost so many of its cores that all ranks would have to do
    with as few is left idle. As many ranks as are asked for stay in one cluster each, or else in one package, unless
    that leaves them less than three quarters of the cores that they could have across them. A quota of CPU time bounds
    the threads of all ranks together.

    Args:
        topology: The machine.
        ranks: How many, at least 1; None for one a cluster.
        threads: Of each rank, at least 1; None for as many as it has cores, but for those in reserve.
        reserve_cores: How many cores of each rank are left to the system and to communication, at least 0.

    Raises:
        UsageError: It does not fit. The message has the arithmetic.
    """
    cores = sorted(topology.usable_cores, key=lambda core: (core.package, core.node, core.cpus))
    if not cores:
        raise UsageError(f"none of the CPUs of {topology.source} may be used")
    quota = None if topology.cpu_quota is None else max(1, int(topology.cpu_quota))
    levels = _levels(cores)
    if ranks is None:
        ranks, fair = _default_ranks(levels, quota)
    else:
        fair = math.ceil(len(cores) // ranks * 3 / 4)
    _Demand(ranks, threads, reserve_cores).check(topology, quota)

    wanted = (threads or (quota // ranks if quota else len(cores))) + reserve_cores
    enough = wanted if threads else max(1 + reserve_cores, min(fair, wanted))
    # The last level, the whole machine, always has enough.
    groups = next(groups for groups in levels if _cores_each(groups, ranks) >= enough)
    each = min(_cores_each(groups, ranks), wanted)
    taken = (tuple(chunk) for chunk in _deal(groups, ranks, each))
    seats = tuple(_seat(topology, rank, chunk) for rank, chunk in enumerate(taken))
    return Placement(seats, each - reserve_cores)


def _levels(cores: list[Core]) -> list[_Groups]:
    """The cores by cluster, by package, and all together."""
    keys: list[Callable[[Core], int]] = [lambda core: core.node, lambda core: core.package, lambda _: 0]
    return [_group(cores, key) for key in keys]


def _group(cores: Iterable[Core], key: Callable[[Core], int]) -> _Groups:
    groups: dict[int, list[Core]] = {}
    for core in cores:
        groups.setdefault(key(core), []).append(core)
    return list(groups.values())


def _cores_each(groups: _Groups, ranks: int) -> int:
    """The most cores that each rank can have if none spans two groups. There are no fewer cores than ranks."""
    sizes = [len(group) for group in groups]
    return next(each for each in range(sum(sizes) // ranks, 0, -1) if sum(size // each for size in sizes) >= ranks)


def _default_ranks(levels: list[_Groups], quota: int | None) -> tuple[int, int]:
    """How many ranks, one a cluster, use the most cores, and how many cores each has.

    Clusters that a cpuset cuts so unevenly that more than a quarter of the cores would be idle are taken together by
    package, if that is better. Where equally many cores are used, fewer ranks are better, as each has weights of its
    own. A quota of CPU time leaves some clusters no work.
    """
    usable = sum(map(len, levels[0]))
    budget = quota or usable
    best = (0, 0, 0)
    for groups in levels[:-1]:
        sizes = sorted(map(len, groups), reverse=True)
        busy = math.ceil(quota / sizes[0]) if quota else len(sizes)
        counts = enumerate(sizes[:busy], 1)
        choice = max((ranks * min(each, budget // ranks), -ranks, each) for ranks, each in counts)
        best = max(best, choice, key=lambda one: one[0])
        if best[0] >= min(usable, budget) * 3 / 4:
            break
    return -best[1], best[2]


def _deal(groups: _Groups, ranks: int, each: int) -> Iterable[list[Core]]:
    """Spread the ranks over the groups: the next one goes where most is left, then where the package has fewest."""
    seated: Counter[int] = Counter()
    packages: Counter[int] = Counter()
    for _ in range(ranks):
        best = max(
            range(len(groups)),
            key=lambda at: (len(groups[at]) - seated[at] * each, -packages[groups[at][0].package], -at),
        )
        seated[best] += 1
        packages[groups[best][0].package] += 1
    return itertools.chain.from_iterable(
        [group[n * each : (n + 1) * each] for n in range(seated[at])] for at, group in enumerate(groups)
    )


def _seat(topology: Topology, rank: int, cores: tuple[Core, ...]) -> Seat:
    clusters = tuple(sorted({core.node for core in cores}))
    return Seat(rank, cores, clusters, _memory_node(topology, clusters[0]) if len(clusters) == 1 else None)


def _memory_node(topology: Topology, cluster: int) -> int | None:
    """The HBM of the cluster in flat mode, else the cluster itself.

    HBM that is nearer to another cluster is that one's: its own memory serves a rank better than what two share.
    """
    hbm = topology.nearest_hbm(cluster) if topology.hbm_mode == "flat" else None
    if hbm and cluster in nearest_clusters(topology, hbm):
        return hbm.number
    own = topology.node(cluster)
    return cluster if own.memory and cluster in topology.allowed_nodes else None
