"""A picture of a machine, for a terminal or a log: its sockets, clusters and memory, and where each rank sits."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from glmpatch.machine.bf16 import bf16_unit
from glmpatch.machine.boxes import INDENT, Column, Rows, draw_table, to_ascii
from glmpatch.machine.placement import Placement, Seat, nearest_clusters
from glmpatch.machine.topology import Core, NumaNode, Topology, format_cpu_list
from glmpatch.wording import count

_KINDS = {"ddr": "DDR", "hbm": "HBM", "other": "slow"}


def draw(topology: Topology, placement: Placement, *, width: int = 80, ascii_only: bool = False) -> str:
    """The machine as lines of text, each with its newline.

    Args:
        topology: The machine.
        placement: Where the ranks go on it.
        width: The columns that a line may take. A table takes what its narrowest column needs.
        ascii_only: Whether the boxes are made of `+-|`.
    """
    clusters = sorted(topology.clusters, key=lambda cluster: (_packages(topology, cluster), cluster.number))
    table = draw_table([_column(topology, placement, cluster) for cluster in clusters], width)
    sentences = [*_head(topology), _ranks(placement)]
    text = "\n".join([*wrap(sentences, width), "", *table, *wrap(_tail(topology), width), ""])
    return to_ascii(text) if ascii_only else text


def wrap(sentences: Iterable[str], width: int) -> list[str]:
    """The sentences in lines of at most that many columns; but a path is not broken, so that it can be copied."""
    # Of a terminal whose size nobody has set it is 0.
    wrapper = textwrap.TextWrapper(
        max(width, 1), subsequent_indent=INDENT, break_on_hyphens=False, break_long_words=False
    )
    return [line for sentence in sentences for line in wrapper.wrap(sentence)]


def format_gib(size: int) -> str:
    """A number of bytes for people, always in GiB."""
    gib = size / 2**30
    return f"{gib:.0f} GiB" if gib >= 10 else f"{gib:.1f} GiB"  # noqa: PLR2004 - two digits are enough


def summarise(topology: Topology) -> str:
    """How many there are of everything, on one line."""
    parts = [
        count(len(topology.packages), "socket"),
        count(len(topology.clusters), "cluster") + (f" (SNC{topology.snc})" if topology.snc > 1 else ""),
        count(len(topology.cores), "core"),
        count(sum(len(core.cpus) for core in topology.cores), "CPU"),
    ]
    for kind, name in _KINDS.items():
        if size := sum(node.memory for node in topology.nodes if node.kind == kind):
            mode = {"flat": " in flat mode", "only": " alone"}.get(topology.hbm_mode, "") if kind == "hbm" else ""
            parts.append(f"{format_gib(size)} {name}{mode}")
    if cache := sum(node.cache for node in topology.nodes):
        parts.append(f"{format_gib(cache)} HBM in cache mode")
    return ", ".join(parts)


def _head(topology: Topology) -> Iterator[str]:
    """What there is."""
    yield f"{topology.model} ({topology.source})" if topology.model else topology.source
    yield summarise(topology)
    yield _instructions(topology.isa)
    granted = [] if topology.cpu_quota is None else [f"the time of {topology.cpu_quota:g} CPUs"]
    if topology.memory_limit is not None:
        granted.append(f"{format_gib(topology.memory_limit)} of memory")
    if granted:
        yield f"the control group grants {' and '.join(granted)}"


def _instructions(isa: tuple[str, ...] | None) -> str:
    if isa is None:
        return "bf16: not known, the source does not tell the instructions"
    by = bf16_unit(isa) or "emulated, slow"
    return f"bf16: {by} ({', '.join(isa) or 'not even avx2'})"


def _ranks(placement: Placement) -> str:
    cores = len(placement.seats[0].cores)
    each = " each" if len(placement.seats) > 1 else ""
    reserve = f", {cores - placement.threads} of {cores} cores in reserve" if cores > placement.threads else ""
    return f"{count(len(placement.seats), 'rank')}, {count(placement.threads, 'thread')}{each}{reserve}"


def _tail(topology: Topology) -> Iterator[str]:
    """What belongs to no cluster: memory between them, and distances."""
    for node in topology.nodes:
        if not node.cpus and _home(topology, node) is None:
            near = format_cpu_list(nearest_clusters(topology, node))
            forbidden = "" if node.number in topology.allowed_nodes else ", not allowed"
            yield f"node {node.number}: {format_gib(node.memory)} {_KINDS[node.kind]}, near to nodes {near}{forbidden}"
    if len(topology.nodes) > 1:
        far: dict[str, set[int]] = {}
        for cluster in topology.clusters:
            for node, distance in zip(topology.nodes, cluster.distances, strict=True):
                far.setdefault(_relation(topology, cluster, node), set()).add(distance)
        shown = [f"{_span(far[to])} {to}" for to in ("to itself", "to its HBM", "in its socket", "beyond") if to in far]
        yield f"distance of a cluster: {', '.join(shown)}"


def _relation(topology: Topology, cluster: NumaNode, node: NumaNode) -> str:
    if node == cluster:
        return "to itself"
    if not node.cpus:
        return "to its HBM" if node.kind == "hbm" and _home(topology, node) == cluster.number else "elsewhere"
    mine, other = (_packages(topology, each) for each in (cluster, node))
    return "in its socket" if set(mine) & set(other) else "beyond"


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _packages(topology: Topology, cluster: NumaNode) -> tuple[int, ...]:
    return tuple(sorted({core.package for core in topology.cores if core.node == cluster.number}))


def _home(topology: Topology, node: NumaNode) -> int | None:
    """The cluster that memory without CPUs is nearest to, if that is one."""
    nearest = nearest_clusters(topology, node)
    return nearest[0] if len(nearest) == 1 else None


def _column(topology: Topology, placement: Placement, cluster: NumaNode) -> Column:
    cores = [core for core in topology.cores if core.node == cluster.number]
    beside = [node for node in topology.nodes if not node.cpus and _home(topology, node) == cluster.number]
    seats = [seat for seat in placement.seats if cluster.number in seat.clusters]
    seated = {core for seat in seats for core in seat.cores}
    idle = [core for core in topology.usable_cores if core.node == cluster.number and core not in seated]
    has: Rows = {
        "NUMA node": [str(cluster.number)],
        "cores": [_first_cpus(cores)],
        "hyperthreads": [format_cpu_list(cpu for core in cores for cpu in core.cpus[1:])],
    }
    for kind, name in _KINDS.items():
        has[name] = [format_gib(cluster.memory)] if cluster.memory and cluster.kind == kind else []
        has[f"{name} (node)"] = [f"{format_gib(node.memory)} ({node.number})" for node in beside if node.kind == kind]
    has["HBM as cache"] = [format_gib(cluster.cache)] if cluster.cache else []
    has["not allowed"] = [
        _prefixed("CPU ", set(cluster.cpus) - set(topology.allowed_cpus)),
        _prefixed("memory ", {node.number for node in (cluster, *beside) if node.memory} - set(topology.allowed_nodes)),
    ]
    ranks: Rows = {
        "rank: cores": [f"{seat.rank}: {_first_cpus(_within(seat, cluster))}" for seat in seats],
        "its memory": _preferences(seats),
        "idle cores": [_first_cpus(idle)],
    }
    packages = _packages(topology, cluster)
    title = f"{'socket' if len(packages) == 1 else 'sockets'} {format_cpu_list(packages)}"
    sections = tuple(
        {label: [line for line in lines if line] for label, lines in rows.items()} for rows in (has, ranks)
    )
    return Column(title, sections)


def _first_cpus(cores: Iterable[Core]) -> str:
    return format_cpu_list(core.cpus[0] for core in cores)


def _prefixed(prefix: str, numbers: Iterable[int]) -> str:
    text = format_cpu_list(numbers)
    return prefix + text if text else ""


def _within(seat: Seat, cluster: NumaNode) -> list[Core]:
    return [core for core in seat.cores if core.node == cluster.number]


def _preferences(seats: Sequence[Seat]) -> list[str]:
    """The memory that each rank prefers; said once if it is the same for all."""
    wanted = ["any" if seat.memory_node is None else f"node {seat.memory_node}" for seat in seats]
    if len(set(wanted)) <= 1:
        return wanted[:1]
    return [f"{seat.rank}: {memory}" for seat, memory in zip(seats, wanted, strict=True)]
