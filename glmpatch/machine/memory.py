"""Whether the ranks of a placement fit into the memory of the machine, and which mode of HBM serves them best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

from glmpatch.machine.need import Part, RankNeed
from glmpatch.machine.placement import Placement, Seat
from glmpatch.machine.topology import HbmMode, MemoryKind, NumaNode, Topology, format_cpu_list
from glmpatch.wording import size

NOT_MODELLED = (
    "evaluation and generation, full fine-tuning, quantised weights",
    "copies of a matrix that oneDNN makes for itself in another layout, at most of the largest matrix",
    "the data set, whose pages are files' and can be dropped",
)
# How far a real rank may be above the estimate.
MARGIN = 0.15
# What the kernel, services and page tables take, spread over the nodes with CPUs; on a small machine a tenth.
_SYSTEM = 4 * 1024**3
# The kernel goes to the next node before a node is quite empty.
_WATERMARK = 0.01

Verdict: TypeAlias = Literal["fits", "tight", "too small"]


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What lands on a NUMA node, in bytes, with the margin.

    Attributes:
        number: Of the node.
        kind: Of its memory.
        usable: What the system leaves.
        wanted: What its ranks want there: all of theirs, and of HBM beside DDR the pages of the files that they read.
        placed: What ends there: of its own, and of nodes that are full.
    """

    number: int
    kind: MemoryKind
    usable: int
    wanted: int
    placed: int


@dataclass(frozen=True, slots=True)
class ModeOutlook:
    """How a mode of HBM would serve the ranks.

    Attributes:
        mode: The mode.
        fits: Whether the ranks have memory enough in it, as the machine is.
        share: The part of what each step reads that comes from HBM, at worst, for the rank that has the least HBM.
        why: The arithmetic, in a sentence.
    """

    mode: HbmMode
    fits: bool
    share: float
    why: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of all ranks of one machine.

    Attributes:
        need: Of one rank, without the margin.
        ranks: How many there are.
        mode: How the machine uses its HBM now.
        nodes: What lands where.
        verdict: `tight` if the estimate fits, and with the margin does not.
        reasons: The arithmetic of the verdict, a clause each.
        modes: The modes that the HBM could be in, the best first; empty without HBM.
    """

    need: RankNeed
    ranks: int
    mode: HbmMode
    nodes: tuple[NodeLoad, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    modes: tuple[ModeOutlook, ...]

    @property
    def fits(self) -> bool:
        """Whether it fits by the estimate."""
        return self.verdict != "too small"

    @property
    def best_mode(self) -> HbmMode:
        """The mode of HBM that serves best; `none` without HBM."""
        return self.modes[0].mode if self.modes else "none"


def plan_memory(topology: Topology, placement: Placement, need: RankNeed) -> MemoryPlan:
    """Add up what the ranks of `placement` need on each node of `topology`.

    A rank's memory comes from the node that it prefers, and when that is full from the next ones by distance, as the
    kernel does it. A rank that prefers none takes that of its clusters first.
    """
    ranks, safe = len(placement.seats), with_margin(need.peak_bytes)
    nodes = _fill(topology, placement, need)
    room = sum(node.usable for node in nodes)
    reasons = [f"{ranks} x {size(safe)} = {size(ranks * safe)} of the {size(room)} that the system leaves"]
    if topology.memory_limit is not None:
        room = min(room, topology.memory_limit)
        reasons.append(f"the control group grants {size(topology.memory_limit)}")
    verdict: Verdict = "too small" if ranks * need.peak_bytes > room else "tight" if ranks * safe > room else "fits"
    modes = _outlooks(topology, placement, need)
    return MemoryPlan(need, ranks, topology.hbm_mode, nodes, verdict, tuple(reasons), modes)


def describe(plan: MemoryPlan) -> list[str]:
    """The plan for people, line by line, with the arithmetic."""
    need = plan.need
    safe = with_margin(need.peak_bytes)
    lines = [
        f"memory of a rank: {size(need.peak_bytes)}, and {size(safe)} with a margin of {MARGIN:.0%}",
        f"  while it loads {size(need.loading_bytes)}: {_parts(need.loading)}",
        f"  while it trains {size(need.training_bytes)}: {_parts((*need.steady, *need.step))}",
        f"  not counted: {'; '.join(NOT_MODELLED)}",
    ]
    for line, nodes in groupby(filter(lambda node: node.wanted or node.placed, plan.nodes), key=_load):
        numbers = [node.number for node in nodes]
        lines.append(f"{'nodes' if numbers[1:] else 'node'} {format_cpu_list(numbers)}{line}")
    return [*lines, *judge(plan)]


def judge(plan: MemoryPlan) -> list[str]:
    """What comes of it: first whether the ranks fit, then the modes of HBM, the best first."""
    lines = [f"memory {plan.verdict}: {'; '.join(plan.reasons)}"]
    for at, outlook in enumerate(plan.modes):
        now = " (as now)" if outlook.mode == plan.mode else ""
        lines.append(f"{'' if at else 'best '}mode of HBM: {outlook.mode}{now}: {outlook.why}")
    return lines


def with_margin(amount: int) -> int:
    """So many bytes, and what the estimate may be off."""
    return int(amount * (1 + MARGIN))


def _parts(parts: Iterable[Part]) -> str:
    """The parts, the largest first."""
    ordered = sorted((part for part in parts if part.size), key=lambda part: -part.size)
    return ", ".join(f"{size(part.size)} {part.title}" for part in ordered)


def _load(node: NodeLoad) -> str:
    """What a line says after the number of the node."""
    spilled, taken = max(0, node.wanted - node.usable), max(0, node.placed - node.wanted)
    end = f"; {size(spilled)} go elsewhere" if spilled else ""
    end += f"; {size(taken)} come from full nodes" if taken else ""
    return f" ({node.kind.upper()}): {size(node.wanted)} wanted of {size(node.usable)}{end}"


def _fill(topology: Topology, placement: Placement, need: RankNeed) -> tuple[NodeLoad, ...]:
    """Give each rank its memory: first what there is where it wants it, then what others have left."""
    nodes = {node.number: node for node in topology.nodes if node.number in topology.allowed_nodes and node.memory}
    usable = {number: _usable(topology, node) for number, node in nodes.items()}
    free, wanted, placed = dict(usable), Counter[int](), Counter[int]()
    lacking: list[tuple[int, int]] = []
    for seat in placement.seats:
        homes = _homes(topology, seat, nodes)
        for home in homes:
            files = need.checkpoint // len(placement.seats) if _beside_ddr(topology, nodes[home]) else 0
            wish = (with_margin(need.peak_bytes) + files) // len(homes)
            got = min(wish, free[home])
            wanted[home] += wish
            placed[home] += got
            free[home] -= got
            lacking.append((home, wish - got))
    for home, lack in lacking:
        for number in _by_distance(topology, home, nodes):
            got = min(lack, free[number])
            placed[number] += got
            free[number] -= got
            lack -= got  # noqa: PLW2901 - it shrinks from node to node
    return tuple(
        NodeLoad(number, node.kind, usable[number], wanted[number], placed[number]) for number, node in nodes.items()
    )


def _homes(topology: Topology, seat: Seat, nodes: Iterable[int]) -> list[int]:
    """The nodes that a rank takes memory from first, of those that it may."""
    asked = seat.clusters if seat.memory_node is None else (seat.memory_node,)
    allowed = set(nodes)
    return [home for home in asked if home in allowed] or _by_distance(topology, asked[0], allowed)[:1]


def _by_distance(topology: Topology, number: int, candidates: Iterable[int]) -> list[int]:
    distances = dict(zip((node.number for node in topology.nodes), topology.node(number).distances, strict=True))
    return sorted(candidates, key=lambda candidate: (distances[candidate], candidate))


def _beside_ddr(topology: Topology, node: NumaNode) -> bool:
    """Whether files that are read into the page cache push other memory away from the node.

    Their pages follow the policy of the rank that reads them first. The kernel drops them when all nodes are full;
    while another one has room, memory goes there.
    """
    return topology.hbm_mode == "flat" and node.kind == "hbm"


def _usable(topology: Topology, node: NumaNode) -> int:
    """What the system leaves of a node. It lives on the nodes with CPUs; of the others only the watermark is lost."""
    if not node.cpus:
        return int(node.memory * (1 - _WATERMARK))
    return node.memory - min(node.memory // 10, _SYSTEM // len(topology.clusters))


def _outlooks(topology: Topology, placement: Placement, need: RankNeed) -> tuple[ModeOutlook, ...]:
    """The modes that the HBM could be in, the best first.

    The firmware offers flat and cache mode where there is DDR, and uses HBM alone where there is none.
    """
    if topology.hbm_mode == "none":
        return ()
    allowed = [node for node in topology.nodes if node.number in topology.allowed_nodes]
    ddr = sum(_usable(topology, node) for node in allowed if node.kind == "ddr")
    total = len(placement.seats) * with_margin(need.peak_bytes)
    modes = [
        _flat_mode(topology, placement, need, ddr=ddr, more=total - _hbm(topology)),
        _cache_mode(topology, placement, need, ddr=ddr, more=total),
    ]
    if not ddr:
        modes.append(_only_mode(sum(_usable(topology, node) for node in allowed), total))
    # Where flat and cache both give all, flat does it without looking into a cache first: the sort keeps their order.
    return tuple(sorted(modes, key=lambda outlook: (outlook.fits, outlook.share), reverse=True))


def _hbm(topology: Topology) -> int:
    """All HBM that we may use."""
    allowed = (node for node in topology.nodes if node.number in topology.allowed_nodes)
    return sum(node.cache + (node.memory if node.kind == "hbm" else 0) for node in allowed)


def _hbm_of(topology: Topology, seat: Seat, placement: Placement) -> list[int]:
    """A rank's part of the HBM of each of its clusters, which it shares with the other ranks there."""
    ranks = Counter(number for each in placement.seats for number in each.clusters)
    return [_hbm(topology) // len(topology.clusters) // ranks[number] for number in seat.clusters]


def _only_mode(room: int, total: int) -> ModeOutlook:
    fits = total <= room
    why = f"the ranks need {size(total)}, {'less' if fits else 'more'} than the {size(room)} that the system leaves"
    return ModeOutlook("only", fits, float(fits), why)


def _flat_mode(topology: Topology, placement: Placement, need: RankNeed, *, ddr: int, more: int) -> ModeOutlook:
    """A rank prefers one node of HBM. What comes after that is full goes to DDR: at worst, what each step reads."""
    node = min(_hbm_of(topology, seat, placement)[0] for seat in placement.seats)
    room, files = int(node * (1 - _WATERMARK)), need.checkpoint // len(placement.seats)
    own, hot = with_margin(need.peak_bytes), with_margin(need.hot_bytes)
    spilled = max(0, own + files - room)
    share = max(0.0, 1 - spilled / hot)
    why = f"a rank may fill {size(own + files)}, {size(own)} of its own and {size(files)} of page cache as it loads, "
    if spilled:
        why += f"more than the {size(room)} of HBM that it can prefer: of the {size(hot)} that each step reads, "
        why += f"{size(min(spilled, hot))} may be in DDR"
        why += " (none without the margin)" if need.peak_bytes + files <= room else ""
    else:
        why += f"less than the {size(room)} of HBM that it can prefer: all that each step reads is in HBM"
    return ModeOutlook("flat", 0 < ddr >= more, share, why + _ddr(ddr, more))


def _cache_mode(topology: Topology, placement: Placement, need: RankNeed, *, ddr: int, more: int) -> ModeOutlook:
    """HBM as the cache of DDR, directly mapped: it holds what steps read, and nothing that loading has left behind.

    A step reads all its memory once, in the same order. Two lines with one place in the cache push each other out
    before they are read again: of more than the cache holds, only what shares its place with nothing is found there.
    That is for memory that lies together, as on a machine that was started lately; scattered pages collide earlier.
    """
    # The rank with the least decides: the others wait for it after every step.
    cache = min(sum(_hbm_of(topology, seat, placement)) for seat in placement.seats)
    hot = with_margin(need.hot_bytes)
    share = min(1.0, max(0.0, (2 * cache - hot) / hot))
    why = f"each step reads {size(hot)} a rank, and its HBM caches {size(cache)}: {share:.0%} of it comes from HBM"
    return ModeOutlook("cache", 0 < ddr >= more, share, why + _ddr(ddr, more))


def _ddr(ddr: int, more: int) -> str:
    """What DDR such a mode needs that is not there."""
    return "" if 0 < ddr >= more else f"; it needs {size(max(more, 0))} of DDR, there are {size(ddr)}"
