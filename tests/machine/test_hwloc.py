from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.errors import UsageError
from glmpatch.machine import hwloc
from glmpatch.machine.picture import draw
from glmpatch.machine.placement import place
from glmpatch.machine.topology import Core, NumaNode, Topology
from tests.machine.machines import GIB, XEON_MAX, allow, machine, max9462, offline, with_memory_node

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n'
SETS = 'cpuset="0x3" nodeset="0x1"'
PUS = '<object type="PU" os_index="0" cpuset="0x1"/><object type="PU" os_index="1" cpuset="0x2"/>'
NODE = f'<object type="NUMANode" os_index="0" {SETS} local_memory="4096"/>'


def document(objects: str, *, after: str = "", version: str = "2.0", attributes: str = SETS) -> bytes:
    """A file with those objects in its machine."""
    machine = f'<object type="Machine" os_index="0" {attributes}>{objects}</object>'
    return f'{HEAD}<topology version="{version}">{machine}{after}</topology>'.encode()


def package(objects: str, number: int = 0, cpuset: str = "0x3") -> str:
    return f'<object type="Package" os_index="{number}" cpuset="{cpuset}">{objects}</object>'


def core(cpuset: str, *cpus: int) -> str:
    inside = "".join(f'<object type="PU" os_index="{cpu}" cpuset="{1 << cpu:#x}"/>' for cpu in cpus)
    return f'<object type="Core" os_index="0" cpuset="{cpuset}">{inside}</object>'


def node(number: int, cpuset: str, memory: int = GIB, more: str = "") -> str:
    return f'<object type="NUMANode" os_index="{number}" cpuset="{cpuset}" local_memory="{memory}" {more}/>'


def again(topology: Topology) -> Topology:
    """The topology after it was written and read."""
    return replace(hwloc.parse(hwloc.render(topology).encode(), topology.source), isa=topology.isa)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Machines of each kind, some of them with CPUs that are offline or not ours, or with other memory."""
    topology = machine(
        packages=draw(st.sampled_from([1, 2, 4])),
        snc=draw(st.sampled_from([1, 2, 4])),
        cores=draw(st.integers(1, 3)),
        ht=draw(st.booleans()),
        hbm=draw(st.sampled_from(["none", "only", "flat", "cache"])),
    )
    if draw(st.booleans()):
        topology = with_memory_node(topology, 128, draw(st.sampled_from([13, 17, 31])))
    cpus = topology.allowed_cpus
    topology = offline(topology, draw(st.sets(st.sampled_from(cpus), max_size=len(cpus) // 2 - 1 if cpus[1:] else 0)))
    cpus, nodes = topology.allowed_cpus, topology.allowed_nodes
    allowed = draw(st.sets(st.sampled_from(cpus), min_size=1))
    return allow(topology, allowed, draw(st.sets(st.sampled_from(nodes), min_size=1)))


@settings(max_examples=40, deadline=None)
@given(topologies())
def test_what_is_written_reads_back(topology: Topology) -> None:
    # A node whose CPUs are all offline is memory alone to hwloc, but its kind is written down.
    assert again(topology) == topology


def test_a_node_that_several_packages_share() -> None:
    # The firmware interleaves the memory of all packages, or of pairs of them.
    one = machine(packages=4, snc=1, cores=2)
    for size in (4, 2):
        groups = [range(first, first + size) for first in range(0, 4, size)]
        nodes = tuple(
            NumaNode(
                number,
                tuple(sorted(cpu for package in group for cpu in one.node(package).cpus)),
                GIB,
                "ddr",
                tuple(10 if other == number else 20 for other in range(len(groups))),
            )
            for number, group in enumerate(groups)
        )
        cores = tuple(replace(core, node=core.package // size) for core in one.cores)
        topology = replace(one, cores=cores, nodes=nodes, allowed_nodes=tuple(range(len(groups))))
        assert again(topology) == topology


def test_names_are_escaped() -> None:
    topology = replace(machine(packages=1, snc=1, cores=1), model="A \"<&>' B 至强")
    assert again(topology) == topology


def test_version_3() -> None:
    written = hwloc.render(max9462("flat")).replace('version="2.0"', 'version="3.0"')
    # It has a second number of each object, and no page sizes.
    written = written.replace('type="PU"', 'type="PU" id="obj5"')
    assert replace(hwloc.parse(written.encode(), "test machine"), isa=max9462().isa) == max9462("flat")


def test_objects_in_between_and_sets_of_many_words() -> None:
    cpuset = "0x00000001,,0x00000001"
    cpu = '<object type="PU" os_index="0" cpuset="0x1"/><object type="PU" os_index="64" cpuset="0x1,,0x0"/>'
    inner = f'<object type="Core" os_index="7" cpuset="{cpuset}"><info name="a" value="b"/>{cpu}</object>'
    for kind in ("L1Cache", "L3Cache", "Die", "Group"):
        inner = f'<object type="{kind}" cpuset="{cpuset}">{inner}</object>'
    cache = f'<object type="MemCache" cpuset="{cpuset}" cache_size="64">{node(12, cpuset)}</object>'
    data = document(package(cache + inner, 3, cpuset), attributes=f'cpuset="{cpuset}" nodeset="0x1000"')
    read = hwloc.parse(data, "x.xml")
    assert read.cores == (Core(3, 12, (0, 64)),)
    assert read.nodes == (NumaNode(12, (0, 64), GIB, "ddr", (10,), 64),)
    assert (read.source, read.model, read.isa, read.notes) == ("x.xml", "", None, ())
    assert (read.allowed_cpus, read.allowed_nodes) == ((0, 64), (12,))


def test_what_is_not_allowed() -> None:
    attributes = f'{SETS} allowed_cpuset="0x2" allowed_nodeset="0x2"'
    nodes = node(0, "0x3") + node(1, "0x3", more='subtype="DRAM"')
    read = hwloc.parse(document(nodes + PUS, attributes=attributes), "x.xml")
    assert (read.allowed_cpus, read.allowed_nodes) == ((1,), (1,))


def test_memory_without_cpus_names_those_that_it_is_near_to() -> None:
    # Of one package, of a whole machine, of none.
    near = package(node(0, "0x1") + node(2, "0x1") + core("0x1", 0), 0, "0x1")
    far = package(node(1, "0x2") + core("0x2", 1), 1, "0x2")
    read = hwloc.parse(document(node(3, "0x3") + node(4, "0x0") + near + far), "x.xml")
    assert [found.cpus for found in read.nodes] == [(0,), (1,), (), (), ()]
    # No distances: what shares CPUs is nearer.
    assert read.node(2).distances == (15, 20, 10, 15, 20)
    assert read.notes[0] == "The distances of the NUMA nodes are not told: guessed."


@pytest.mark.parametrize(
    ("subtype", "kind"),
    [("HBM", "hbm"), ("MCDRAM", "hbm"), ("DRAM", "ddr"), ("NVM", "other"), ("CXL-DRAM", "other"), ("SPM", "other")],
)
def test_subtypes(subtype: str, kind: str) -> None:
    nodes = node(0, "0x3") + node(1, "0x3", more=f'subtype="{subtype}"')
    assert hwloc.parse(document(nodes + PUS), "x.xml").node(1).kind == kind


@pytest.mark.parametrize(("bandwidth", "kind"), [(60000, "other"), (400000, "hbm")])
def test_bandwidths(bandwidth: int, kind: str) -> None:
    nodes = node(0, "0x3", more='gp_index="5"') + node(1, "0x3", more='gp_index="6" subtype="SPM"')
    values = "".join(
        f'<memattr_value target_obj_type="NUMANode" target_obj_gp_index="{index}" value="{value}"/>'
        for index, value in ((5, 100000), (6, bandwidth), (6, 1))
    )
    read = hwloc.parse(document(nodes + PUS, after=f'<memattr name="Bandwidth" flags="5">{values}</memattr>'), "x.xml")
    assert read.node(1).kind == kind


def test_a_xeon_max_without_subtypes() -> None:
    bare = hwloc.render(max9462("flat")).replace(' subtype="HBM"', "").replace(' subtype="DRAM"', "")
    assert hwloc.parse(bare.encode(), "test machine").nodes == max9462("flat").nodes
    bare = hwloc.render(max9462("only")).replace(' subtype="HBM"', "")
    assert hwloc.parse(bare.encode(), "test machine").hbm_mode == "only"
    assert hwloc.parse(bare.replace(XEON_MAX, "Xeon 6").encode(), "test machine").hbm_mode == "none"


def test_cores_and_packages_that_are_not_told() -> None:
    read = hwloc.parse(document(NODE + PUS), "x.xml")
    assert read.cores == (Core(0, 0, (0,)), Core(0, 0, (1,)))
    assert read.notes == (
        "The cores are not told: each CPU is taken for one.",
        "The packages are not told: taken for one.",
    )
    # A core names a CPU that is not there, and a CPU has no core.
    read = hwloc.parse(document(NODE + core("0x5", 0) + core("0x8") + PUS[PUS.index("/>") + 2 :]), "x.xml")
    assert [found.cpus for found in read.cores] == [(0,), (1,)]


def test_distances_of_another_kind_are_not_taken() -> None:
    nodes = node(0, "0x1") + node(1, "0x2")
    bandwidth = (
        '<distances2 type="NUMANode" nbobjs="2" kind="9" name="NUMABandwidth" indexing="os">'
        '<indexes length="4">0 1 </indexes><u64values length="4">1 2 3 4 </u64values></distances2>'
    )
    read = hwloc.parse(document(nodes + PUS, after=bandwidth), "x.xml")
    assert [found.distances for found in read.nodes] == [(10, 20), (20, 10)]
    latency = (
        bandwidth.replace("NUMABandwidth", "NUMALatency").replace("0 1 ", "1 0 ").replace("1 2 3 4 ", "10 7 8 10 ")
    )
    read = hwloc.parse(document(nodes + PUS, after=latency), "x.xml")
    assert [found.distances for found in read.nodes] == [(10, 8), (7, 10)]


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE topology [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + '<!ENTITY z SYSTEM "file:///etc/passwd">]>'
    + '<topology version="2.0"><info name="a" value="&i;">&z;</info></topology>'
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not XML: no element found"),
        (b"# numactl -H\n", "it is not XML: not well-formed"),
        (document(NODE + PUS)[:-20], "it is not XML: no element found"),
        (b"\xff\xfe\x00", "it is not XML"),
        (b"<?xml version='1.0' encoding='klingon'?><topology/>", "it is not XML: unknown encoding: klingon"),
        (b"<topology/>", "hwloc 1.0; versions 2 and 3 are read"),
        (document(NODE + PUS, version="4.1"), "hwloc 4.1; versions 2 and 3 are read"),
        (b'<svg version="2.0"/>', "its root is <svg>"),
        (b'<topology version="2.0"/>', "it has no machine"),
        (document(NODE), "it has no CPUs"),
        (document(PUS), "it has no NUMA node"),
        (document(NODE + PUS + PUS), "two CPUs have the number 0"),
        (document(NODE + NODE + PUS), "two NUMA nodes have one number"),
        (document(PUS + NODE.replace('os_index="0"', "")), "it lacks 'os_index'"),
        (document(NODE + PUS, attributes='nodeset="0x1"'), "it lacks 'cpuset'"),
        (document(NODE + PUS.replace('os_index="1"', 'os_index="99999999999"')), "the number 99999999999 of a CPU"),
        (document(NODE + PUS.replace('os_index="1"', 'os_index="-1"')), "the number -1 of a CPU"),
        (document(NODE + PUS, attributes='cpuset="0x1ffffffff" nodeset="0x1"'), "'0x1ffffffff' is not a set"),
        (document(NODE + PUS, attributes='cpuset="0xf...f" nodeset="0x1"'), "invalid literal"),
        (
            document(NODE + PUS, attributes=f'cpuset="{"," * 5000}" nodeset="0x1"'),
            "a set of more CPUs than any machine",
        ),
        (document(NODE.replace("4096", "4K") + PUS), "invalid literal"),
        (document(NODE.replace("4096", "-4096") + PUS), "the amount -4096"),
        (document(NODE.replace("4096", "9" * 400) + PUS), "the amount 9999"),
        (document(PUS + "".join(node(number, "0x1") for number in range(1025))), "it has more than 1024 NUMA nodes"),
        (document("<object>" * 5000 + "</object>" * 5000), "more than 100 levels"),
        (LAUGHS.encode(), "it declares the entity 'a'"),
        (
            b'<!DOCTYPE t SYSTEM "x.dtd" [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><t/>',
            "it declares the entity 'p'",
        ),
        (b"<a>" + b" " * 64_000_000, "it has more than 64 MB"),
    ],
)
def test_bad_files(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=r"^node\.xml: ") as caught:
        hwloc.parse(data, "node.xml")
    assert message in caught.value.message
    assert "lstopo node.xml" in caught.value.hint


_ATTRIBUTES = re.compile(r'="[^"]*"')
_WRITTEN = hwloc.render(machine(packages=1, snc=2, cores=2, hbm="flat"))
_NONSENSE = ["", "0", "-1", "NaN", "1e5", "9" * 400, "0xf_f", "0x1" + "," * 2047, "-0x1", "PU", "Core", "NUMANode"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nonsense_is_read_or_refused(data: st.DataObject) -> None:
    places = [match.span() for match in _ATTRIBUTES.finditer(_WRITTEN)]
    chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4, unique=True))
    text = _WRITTEN
    for start, end in sorted(chosen, reverse=True):
        text = f'{text[:start]}="{data.draw(st.sampled_from(_NONSENSE))}"{text[end:]}'
    try:
        topology = hwloc.parse(text.encode(), "x.xml")
        placement = place(topology)
    except UsageError:
        return
    assert draw(topology, placement)
    assert hwloc.parse(hwloc.render(topology).encode(), "x.xml").allowed_cpus == topology.allowed_cpus


def test_no_file_is_read_for_a_doctype() -> None:
    data = document(NODE + PUS).replace(b"hwloc2.dtd", b"/dev/zero")
    assert hwloc.parse(data, "x.xml").allowed_cpus == (0, 1)
