"""Tells the kinds of memory apart, from what the sources say about the NUMA nodes.

No file of the kernel says it. So, from the surest to the least sure:

- hwloc's own word, where it has one.
- Memory without CPUs is HBM if it is clearly faster than that of its nearest CPUs, and not if it is slower, where
  the firmware tells: CXL and persistent memory are slower. The distance would not do: CXL can be as near as HBM.
- Memory without CPUs on a Xeon CPU Max is HBM if it is as large as a cluster's share of the HBM, and the nearest
  such node of a cluster: persistent memory and CXL come in other sizes, and in smaller numbers.
- The memory of the CPUs of a Xeon CPU Max is HBM if it is as large as the HBM and there is no other HBM.
- A cache on the memory's side is of HBM on a Xeon CPU Max. On others it is DDR, in front of something slower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glmpatch.machine.topology import MemoryKind, NumaNode

_GIB = 1 << 30
# Every Xeon CPU Max has 64 GiB of HBM on each package. What is online of it is a little less, never more.
_HBM_OF_PACKAGE = range(58 * _GIB, 64 * _GIB + 1)
# So much faster than DDR is HBM at the least, and nothing else.
_FASTER = 1.5
# What hwloc calls them. `SPM` is none of them: memory set aside for a purpose, of either kind.
_SUBTYPES: dict[str, MemoryKind] = {"HBM": "hbm", "MCDRAM": "hbm", "DRAM": "ddr"}
_UNTOLD = ("", "SPM")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a source says about a NUMA node.

    Attributes:
        number: As the kernel numbers it.
        cpus: Its CPUs that are online, ascending.
        memory: Its bytes of memory.
        distances: To every node, in their order.
        cache: The bytes of a cache on the memory's side, of whatever kind.
        subtype: What hwloc calls its memory; "" if nothing does.
        bandwidth: With which the nearest CPUs read it, in any unit that is the same for all; 0 if nothing tells.
        offline_cpus: Whether it has CPUs that are offline.
    """

    number: int
    cpus: tuple[int, ...]
    memory: int
    distances: tuple[int, ...]
    cache: int = 0
    subtype: str = ""
    bandwidth: int = 0
    offline_cpus: bool = False

    @property
    def is_cluster(self) -> bool:
        """Whether it has CPUs, if they are online or not."""
        return bool(self.cpus) or self.offline_cpus


def judge_nodes(facts: Sequence[NodeFacts], model: str, packages: int) -> tuple[tuple[NumaNode, ...], tuple[str, ...]]:
    """Decide of which kind the memory of each node is, by the rules above.

    Args:
        facts: The nodes, by number.
        model: The name of the CPU, or "".
        packages: How many there are.

    Returns:
        The nodes, and what was assumed of them, a sentence each.
    """
    is_max = bool(re.search(r"\bXeon\b.*\bMax\b", model, re.IGNORECASE))
    kinds = {node.number: _told(node) for node in facts}
    beside = _hbm_beside(facts, packages) if is_max else set()
    notes = []
    for node in facts:
        if node.is_cluster or kinds[node.number]:
            continue
        faster = _is_faster(node, facts)
        kinds[node.number] = "hbm" if faster or (faster is None and node.number in beside) else "other"
        if faster is None and not is_max and node.memory:
            notes.append(f"Nothing tells what the memory of node {node.number} is: taken for slower than DDR.")
    only = is_max and "hbm" not in kinds.values() and _is_hbm_only(facts, packages)
    nodes = []
    for node in facts:
        kind = kinds[node.number] or ("hbm" if only else "ddr")
        cache = node.cache
        if cache and model and not is_max:
            notes.append(f"The memory of node {node.number} has a cache, but not of HBM: it is not counted.")
            cache = 0
        nodes.append(NumaNode(node.number, node.cpus, node.memory, kind, node.distances, cache))
    return tuple(nodes), tuple(notes)


def assumed_distances(places: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The distances where a source tells none: what shares CPUs is nearer than what does not.

    Args:
        places: The CPUs that each node is near to, a bit each, in the order of the nodes.
    """
    for row, here in enumerate(places):
        yield tuple(10 if row == column else 15 if here & there else 20 for column, there in enumerate(places))


def _told(node: NodeFacts) -> MemoryKind | None:
    return None if node.subtype in _UNTOLD else _SUBTYPES.get(node.subtype, "other")


def _is_faster(node: NodeFacts, facts: Sequence[NodeFacts]) -> bool | None:
    """Whether a node without CPUs is faster than the memory of the nearest ones; None if nothing tells it clearly."""
    distances = dict(zip((each.number for each in facts), node.distances, strict=True))
    own = [each for each in facts if each.is_cluster and each.bandwidth]
    if not own or not node.bandwidth:
        return None
    ratio = node.bandwidth / min(own, key=lambda each: distances[each.number]).bandwidth
    return True if ratio > _FASTER else False if ratio < 1 else None


def _hbm_beside(facts: Sequence[NodeFacts], packages: int) -> set[int]:
    """The numbers of the nodes without CPUs that a Xeon CPU Max in flat mode would have."""
    clusters = [index for index, node in enumerate(facts) if node.is_cluster]
    # Rounded up: a cluster whose CPUs are all offline is not always seen.
    share = -(-len(clusters) // packages)
    fitting = [
        (index, node)
        for index, node in enumerate(facts)
        if not node.is_cluster and node.memory * share in _HBM_OF_PACKAGE
    ]
    return {
        min(fitting, key=lambda each: (each[1].distances[cluster], each[0]))[1].number
        for cluster in clusters
        if fitting
    }


def _is_hbm_only(facts: Sequence[NodeFacts], packages: int) -> bool:
    clusters = [node for node in facts if node.is_cluster]
    return (
        not any(node.cache for node in clusters)
        and sum(node.memory for node in clusters) // packages in _HBM_OF_PACKAGE
    )
