"""Reads the XML of hwloc, which `lstopo node.xml` makes, and hands on what writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from glmpatch.errors import UsageError
from glmpatch.machine.hwloc_render import render
from glmpatch.machine.memory_kinds import NodeFacts, assumed_distances, judge_nodes
from glmpatch.machine.safe_xml import read_xml
from glmpatch.machine.topology import MOST_NUMBER, Core, Topology

__all__ = ["parse", "render"]

# More nodes than Linux can have.
_MOST_NODES = 1024
# Amounts of memory and the like have 64 bits.
_MOST_AMOUNT = 1 << 64
_WORD = 32

_BANDWIDTHS = ("Bandwidth", "ReadBandwidth")


@dataclass(slots=True)
class _Found:
    """What a walk through the objects has found. Sets of CPUs are bit masks.

    Attributes:
        nodes: Each node's element, the CPUs that it is near to, and the bytes of its cache, in the order of the file.
        cores: The CPUs and the package of each core.
        cpus: The package of each CPU.
        model: The name of the CPU.
    """

    nodes: list[tuple[Element, int, int]] = field(default_factory=list)
    cores: list[tuple[int, int]] = field(default_factory=list)
    cpus: dict[int, int] = field(default_factory=dict)
    model: str = ""


def parse(data: bytes, source: str) -> Topology:
    """Read the XML of hwloc 2 or 3.

    Args:
        data: The bytes of the file.
        source: What the topology is to say of where it is from.

    Raises:
        UsageError: It is not such a file, or one that nobody would write.
    """
    try:
        root = read_xml(data)
        _check_version(root)
        return _topology(root, source)
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", hint=error.hint) from None
    except (KeyError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{source}: not a topology of hwloc: {what}", hint="make one on the machine: lstopo node.xml"
        ) from None


def _check_version(root: Element) -> None:
    if root.tag != "topology":
        raise ValueError(f"its root is <{root.tag[:40]}>")
    # Version 1 has none.
    version = root.get("version", "1.0")
    if version.partition(".")[0] not in {"2", "3"}:
        raise UsageError(
            f"this is the XML of hwloc {version[:20]}; versions 2 and 3 are read",
            hint="make it with hwloc 2 or later, without --export-xml-flags v1: lstopo node.xml",
        )


def _topology(root: Element, source: str) -> Topology:
    machine = root.find("object[@type='Machine']")
    if machine is None:
        raise ValueError("it has no machine")
    found = _Found()
    _walk(machine, found, package=None, cpus=0, cache=0)
    if not found.cpus:
        raise ValueError("it has no CPUs (PU)")
    if not found.nodes:
        raise ValueError("it has no NUMA node")
    notes = []
    cores = list(_cores(found))
    if not found.cores:
        notes.append("The cores are not told: each CPU is taken for one.")
    packages = {package for _, package in cores}
    if -1 in packages:
        notes.append("The packages are not told: taken for one.")
    homes = _homes(found)
    facts, assumed = _node_facts(root, found, homes)
    if assumed:
        notes.append("The distances of the NUMA nodes are not told: guessed.")
    nodes, judged = judge_nodes(facts, found.model, len(packages))
    allowed = _mask(machine.get("allowed_cpuset", machine.attrib["cpuset"]))
    allowed_nodes = _mask(machine.get("allowed_nodeset", machine.attrib["nodeset"]))
    return Topology(
        source=source,
        model=found.model,
        cores=tuple(
            Core(package, homes[cpus[0]], cpus)
            for cpus, package in sorted(
                ((cpus, max(package, 0)) for cpus, package in cores), key=lambda core: core[::-1]
            )
        ),
        nodes=nodes,
        isa=None,
        allowed_cpus=tuple(cpu for cpu in sorted(found.cpus) if allowed >> cpu & 1),
        allowed_nodes=tuple(node.number for node in nodes if allowed_nodes >> node.number & 1),
        notes=(*notes, *judged),
    )


def _walk(element: Element, found: _Found, *, package: int | None, cpus: int, cache: int) -> None:
    """Collect what is below an object.

    Args:
        element: The object.
        found: What is added to.
        package: The number of the package that it is in.
        cpus: The CPUs of the object above it.
        cache: The bytes of the cache on the memory's side that it is behind.
    """
    kind = element.get("type", "")
    cpus = _mask(element.attrib["cpuset"]) if "cpuset" in element.attrib else cpus
    for info in element.iterfind("info[@name='CPUModel']"):
        found.model = found.model or " ".join(info.get("value", "").split())
    if kind == "Package":
        package = _amount(element.get("os_index", "0"))
    elif kind == "MemCache":
        cache = _amount(element.attrib["cache_size"])
    elif kind == "NUMANode":
        found.nodes.append((element, cpus, cache))
    elif kind == "Core":
        found.cores.append((cpus, -1 if package is None else package))
    elif kind == "PU":
        cpu = _number(element.attrib["os_index"])
        if cpu in found.cpus:
            raise ValueError(f"two CPUs have the number {cpu}")
        found.cpus[cpu] = -1 if package is None else package
    for child in element.iterfind("object"):
        _walk(child, found, package=package, cpus=cpus, cache=cache)


def _cores(found: _Found) -> Iterator[tuple[tuple[int, ...], int]]:
    """The CPUs and the package of each core. A CPU outside of all is one of its own."""
    rest = _every(found)
    for mask, package in found.cores:
        if own := mask & rest:
            yield tuple(_members(own)), package
        rest &= ~own
    for cpu in _members(rest):
        yield (cpu,), found.cpus[cpu]


def _homes(found: _Found) -> dict[int, int]:
    """The number of the node that each CPU is in.

    hwloc says of memory without CPUs which CPUs it is near to, just as of other memory. But other memory comes first.
    """
    rest = _every(found)
    homes = dict.fromkeys(found.cpus, _number(found.nodes[0][0].attrib["os_index"]))
    for element, mask, _ in sorted(found.nodes, key=lambda node: node[1].bit_count()):
        homes |= dict.fromkeys(_members(mask & rest), _number(element.attrib["os_index"]))
        rest &= ~mask
    return homes


def _node_facts(root: Element, found: _Found, homes: dict[int, int]) -> tuple[list[NodeFacts], bool]:
    """What the file says of each node, by number, and whether the distances had to be guessed."""
    found.nodes.sort(key=lambda node: _number(node[0].attrib["os_index"]))
    numbers = [_number(element.attrib["os_index"]) for element, _, _ in found.nodes]
    if len(set(numbers)) < len(numbers):
        raise ValueError("two NUMA nodes have one number")
    if len(numbers) > _MOST_NODES:
        raise ValueError(f"it has more than {_MOST_NODES} NUMA nodes")
    told = _distances(root, numbers)
    distances = told or list(assumed_distances([mask for _, mask, _ in found.nodes]))
    bandwidths = _bandwidths(root)
    facts = [
        NodeFacts(
            number=number,
            cpus=tuple(sorted(cpu for cpu, home in homes.items() if home == number)),
            memory=_amount(element.get("local_memory", "0")),
            distances=row,
            cache=cache,
            subtype=element.get("subtype", ""),
            bandwidth=bandwidths.get(element.get("gp_index", ""), 0),
        )
        for number, row, (element, _, cache) in zip(numbers, distances, found.nodes, strict=True)
    ]
    return facts, told is None


def _distances(root: Element, numbers: list[int]) -> list[tuple[int, ...]] | None:
    """The distances between the nodes, if the file tells those of all."""
    if len(numbers) == 1:
        return [(10,)]
    for element in root.iterfind("distances2[@name='NUMALatency'][@type='NUMANode']"):
        indexes = [int(word) for part in element.iterfind("indexes") for word in (part.text or "").split()]
        values = [_amount(word) for part in element.iterfind("u64values") for word in (part.text or "").split()]
        size = len(indexes)
        if size * size == len(values) and set(numbers) <= set(indexes) and element.get("indexing") == "os":
            places = [indexes.index(number) for number in numbers]
            return [tuple(values[row * size + column] for column in places) for row in places]
    return None


def _bandwidths(root: Element) -> dict[str, int]:
    """The best bandwidth of each node, in MB/s, by the node's `gp_index`."""
    best: dict[str, int] = {}
    for name in _BANDWIDTHS:
        for value in root.iterfind(f"memattr[@name='{name}']/memattr_value[@target_obj_type='NUMANode']"):
            node = value.attrib["target_obj_gp_index"]
            best[node] = max(best.get(node, 0), _amount(value.attrib["value"]))
    return best


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number < MOST_NUMBER:
        raise ValueError(f"the number {number} of a CPU or a NUMA node")
    return number


def _amount(text: str) -> int:
    amount = int(text)
    if not 0 <= amount < _MOST_AMOUNT:
        raise ValueError(f"the amount {text[:40]}")
    return amount


def _mask(text: str) -> int:
    """A set as hwloc writes it, `0xff,,0x0000ff00`: words of 32 bits, the highest first; an empty one is 0."""
    words = text.split(",")
    if len(words) > MOST_NUMBER // _WORD:
        raise ValueError("a set of more CPUs than any machine has")
    mask = 0
    for word in words:
        bits = int(word or "0", 16)
        if not 0 <= bits < 1 << _WORD:
            raise ValueError(f"{text[:40]!r} is not a set of CPUs or nodes")
        mask = mask << _WORD | bits
    return mask


def _every(found: _Found) -> int:
    """All CPUs."""
    return sum(1 << cpu for cpu in found.cpus)


def _members(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
