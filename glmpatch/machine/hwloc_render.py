"""Writes a topology as the XML of hwloc, which an MPI takes in the place of its machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from glmpatch.machine.topology import MemoryKind, NumaNode, Topology

# Memory that is slower than DDR has no word of its own that is true of all: that for persistent memory does no harm.
_SUBTYPES: dict[MemoryKind, str] = {"ddr": "DRAM", "hbm": "HBM", "other": "NVM"}
_WORD = 32
# More than these in one element and hwloc's own reader cuts them off.
_NUMBERS_OF_LINE = 10


@dataclass(slots=True)
class _Box:
    """An object that is to be written.

    Attributes:
        type: What hwloc calls it.
        mask: Its CPUs, a bit each.
        number: Its number, if it has one.
        boxes: The objects in it.
        nodes: The NUMA nodes that belong right into it: first those with CPUs.
    """

    type: str
    mask: int
    number: int | None = None
    boxes: list[_Box] = field(default_factory=list)
    nodes: list[NumaNode] = field(default_factory=list)


def render(topology: Topology) -> str:
    """Write a topology as the XML of hwloc 2, which `HWLOC_XMLFILE` hands to an MPI.

    What hwloc has no word for is not in it: the instructions, the limits of the control group, the notes.
    """
    root = Element("topology", version="2.0")
    _Writer(topology).write(root)
    if len(topology.nodes) > 1:
        # The kind: from the system, and a latency.
        kind = {"kind": "5", "name": "NUMALatency", "indexing": "os"}
        distances = SubElement(root, "distances2", {"type": "NUMANode", "nbobjs": str(len(topology.nodes)), **kind})
        _add_numbers(distances, "indexes", [node.number for node in topology.nodes])
        _add_numbers(distances, "u64values", [distance for node in topology.nodes for distance in node.distances])
    indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n'
    return f"{head}{tostring(root, encoding='unicode')}\n"


class _Writer:
    """Writes the objects of a topology."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._boxes = _nest(topology)
        self._ids = itertools.count(1)
        _seat_nodes(self._boxes, topology)

    def write(self, root: Element) -> None:
        machine = self._write_box(root, self._boxes[0])
        machine.set("allowed_cpuset", _format(_mask(self._topology.allowed_cpus)))
        machine.set("allowed_nodeset", _format(_mask(self._topology.allowed_nodes)))

    def _write_box(self, parent: Element, box: _Box) -> Element:
        near = _mask(node.number for each in self._boxes if each.mask & box.mask for node in each.nodes)
        element = self._object(parent, box.type, box.mask, near, box.number)
        if box.type == "Group":
            element.attrib |= {"kind": "1001", "subkind": "0"}  # the kind: of NUMA nodes
        if box.type == "Package" and self._topology.model:
            SubElement(element, "info", name="CPUModel", value=self._topology.model)
        for node in box.nodes:
            self._write_node(element, box.mask, node)
        for inner in sorted(box.boxes, key=lambda each: each.mask & -each.mask):
            self._write_box(element, inner)
        return element

    def _write_node(self, parent: Element, mask: int, node: NumaNode) -> None:
        if node.cache:
            parent = self._object(parent, "MemCache", mask, 1 << node.number)
            shape = {"depth": "1", "cache_linesize": "64", "cache_associativity": "1", "cache_type": "0"}
            parent.attrib |= {"cache_size": str(node.cache), **shape}
        element = self._object(parent, "NUMANode", mask, 1 << node.number, node.number)
        element.attrib |= {"subtype": _SUBTYPES[node.kind], "local_memory": str(node.memory)}

    def _object(self, parent: Element, kind: str, cpus: int, nodes: int, number: int | None = None) -> Element:
        element = SubElement(parent, "object", type=kind)
        if number is not None:
            element.set("os_index", str(number))
        for name, mask in (("cpuset", cpus), ("nodeset", nodes)):
            element.attrib |= {name: _format(mask), f"complete_{name}": _format(mask)}
        element.set("gp_index", str(next(self._ids)))
        return element


def _nest(topology: Topology) -> list[_Box]:
    """The machine and all above its cores, the larger first, each of them in the smallest that holds it."""
    cores = [
        _Box("Core", _mask(core.cpus), number, [_Box("PU", 1 << cpu, cpu) for cpu in core.cpus])
        for number, core in enumerate(topology.cores)
    ]
    packages = {
        number: _mask(cpu for core in topology.cores if core.package == number for cpu in core.cpus)
        for number in topology.packages
    }
    every = _mask(cpu for core in topology.cores for cpu in core.cpus)
    clusters = {_mask(node.cpus) for node in topology.clusters} - {every, *packages.values()}
    boxes = [_Box("Package", mask, number) for number, mask in packages.items()]
    boxes += [_Box("Group", mask) for mask in clusters]
    nested = [_Box("Machine", every, 0)]
    for box in sorted(boxes, key=lambda each: -each.mask.bit_count()):
        _smallest(nested, box.mask).boxes.append(box)
        nested.append(box)
    for core in cores:
        _smallest(nested, core.mask).boxes.append(core)
    return nested


def _seat_nodes(boxes: list[_Box], topology: Topology) -> None:
    """Put each node where its CPUs are; memory without any where the CPUs are that are nearest."""
    for node in sorted(topology.nodes, key=lambda each: not each.cpus):
        distances = dict(zip((each.number for each in topology.nodes), node.distances, strict=True))
        nearest = min(distances[cluster.number] for cluster in topology.clusters)
        near = (cpu for each in topology.clusters if distances[each.number] == nearest for cpu in each.cpus)
        _smallest(boxes, _mask(node.cpus or near)).nodes.append(node)


def _smallest(boxes: list[_Box], mask: int) -> _Box:
    """The last of the boxes, the larger first, that holds those CPUs."""
    return next(box for box in reversed(boxes) if not mask & ~box.mask)


def _add_numbers(parent: Element, tag: str, numbers: list[int]) -> None:
    for start in range(0, len(numbers), _NUMBERS_OF_LINE):
        text = "".join(f"{number} " for number in numbers[start : start + _NUMBERS_OF_LINE])
        SubElement(parent, tag, length=str(len(text))).text = text


def _mask(members: Iterable[int]) -> int:
    mask = 0
    for member in members:
        mask |= 1 << member
    return mask


def _format(mask: int) -> str:
    """A set as hwloc writes it: words of 32 bits, the highest first."""
    return ",".join(reversed(list(_words(mask))))


def _words(mask: int) -> Iterator[str]:
    while True:
        yield f"0x{mask % (1 << _WORD):08x}"
        mask >>= _WORD
        if not mask:
            return
