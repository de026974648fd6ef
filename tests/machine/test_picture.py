from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.machine import presets
from glmpatch.machine.picture import draw, format_gib, summarise
from glmpatch.machine.placement import place
from glmpatch.machine.topology import NumaNode, Topology
from tests.machine.machines import GIB, allow, machine, max9462, offline

FLAT = """\
Intel(R) Xeon(R) CPU Max 9462 (test machine)
2 sockets, 8 clusters (SNC4), 64 cores, 128 CPUs, 1024 GiB DDR, 128 GiB HBM in
  flat mode
bf16: AMX (amx_tile, amx_bf16, avx512_bf16, avx512f, avx2)
8 ranks, 8 threads each

             ┌ socket 0 ───┬─────────────┬─────────────┬─────────────┐
NUMA node    │ 0           │ 1           │ 2           │ 3           │
cores        │ 0-7         │ 8-15        │ 16-23       │ 24-31       │
hyperthreads │ 64-71       │ 72-79       │ 80-87       │ 88-95       │
DDR          │ 128 GiB     │ 128 GiB     │ 128 GiB     │ 128 GiB     │
HBM (node)   │ 16 GiB (8)  │ 16 GiB (9)  │ 16 GiB (10) │ 16 GiB (11) │
             ├─────────────┼─────────────┼─────────────┼─────────────┤
rank: cores  │ 0: 0-7      │ 1: 8-15     │ 2: 16-23    │ 3: 24-31    │
its memory   │ node 8      │ node 9      │ node 10     │ node 11     │
             └─────────────┴─────────────┴─────────────┴─────────────┘
             ┌ socket 1 ───┬─────────────┬─────────────┬─────────────┐
NUMA node    │ 4           │ 5           │ 6           │ 7           │
cores        │ 32-39       │ 40-47       │ 48-55       │ 56-63       │
hyperthreads │ 96-103      │ 104-111     │ 112-119     │ 120-127     │
DDR          │ 128 GiB     │ 128 GiB     │ 128 GiB     │ 128 GiB     │
HBM (node)   │ 16 GiB (12) │ 16 GiB (13) │ 16 GiB (14) │ 16 GiB (15) │
             ├─────────────┼─────────────┼─────────────┼─────────────┤
rank: cores  │ 4: 32-39    │ 5: 40-47    │ 6: 48-55    │ 7: 56-63    │
its memory   │ node 12     │ node 13     │ node 14     │ node 15     │
             └─────────────┴─────────────┴─────────────┴─────────────┘
distance of a cluster: 10 to itself, 13 to its HBM, 12 in its socket, 21 beyond
"""

SMALL = """\
test machine
1 socket, 1 cluster, 2 cores, 2 CPUs, 7.5 GiB DDR
bf16: emulated, slow (not even avx2)
the control group grants the time of 1.5 CPUs and 4.0 GiB of memory
1 rank, 1 thread

            + socket 0 -+
NUMA node   | 0         |
cores       | 0-1       |
DDR         | 7.5 GiB   |
            +-----------+
rank: cores | 0: 0      |
its memory  | node 0    |
idle cores  | 1         |
            +-----------+
"""

TWO_SOCKETS = """\
             ┌ socket 0 ─┐ ┌ socket 1 ─┐
NUMA node    │ 0         │ │ 1         │
cores        │ 0-31      │ │ 32-63     │
hyperthreads │ 64-95     │ │ 96-127    │
DDR          │ 128 GiB   │ │ 128 GiB   │
             ├───────────┤ ├───────────┤
rank: cores  │ 0: 0-29   │ │ 1: 32-61  │
its memory   │ node 0    │ │ node 1    │
idle cores   │ 30-31     │ │ 62-63     │
             └───────────┘ └───────────┘
distance of a cluster: 10 to itself, 21 beyond
"""


def picture(topology: Topology, *, width: int = 80, ascii_only: bool = False, **asked: int) -> str:
    return draw(topology, place(topology, **asked), width=width, ascii_only=ascii_only)


def table(text: str) -> str:
    """What comes behind the sentences."""
    return text.partition("\n\n")[2]


def cells(text: str, label: str) -> list[str]:
    """What the first row of that label has in each column, its lines joined."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{label} "))
    margin = lines[at].index("│")
    more = itertools.takewhile(lambda line: not line[:margin].strip() and line[margin] == "│", lines[at + 1 :])
    parts = ([cell.strip() for cell in line[margin:].strip("│").split("│")] for line in (lines[at], *more))
    return ["|".join(filter(None, column)) for column in zip(*parts, strict=True)]


def test_the_machine_of_the_recipe() -> None:
    assert picture(max9462("flat")) == FLAT


def test_a_small_machine_in_ascii() -> None:
    small = replace(
        machine(packages=1, snc=1, cores=2, ht=False, isa=()), model="", cpu_quota=1.5, memory_limit=4 * GIB
    )
    small = replace(small, nodes=(replace(small.nodes[0], memory=15 * GIB // 2),))
    text = picture(small, ascii_only=True)
    assert text == SMALL
    assert text.isascii()


def test_sockets_side_by_side_and_idle_cores() -> None:
    assert table(picture(machine(packages=2, snc=1, cores=32), threads=30)) == TWO_SOCKETS
    assert len(cells(picture(max9462(), width=120), "NUMA node")) == len("0123") + len(" ") + len("4567")


def test_hbm_as_cache_and_alone() -> None:
    assert cells(picture(max9462("cache")), "HBM as cache") == ["16 GiB"] * 4
    assert summarise(max9462("cache")).endswith(", 1024 GiB DDR, 128 GiB HBM in cache mode")
    alone = picture(max9462("only"))
    assert cells(alone, "HBM") == ["16 GiB"] * 4
    assert "128 CPUs, 128 GiB HBM alone\n" in alone
    assert "DDR" not in alone


def test_what_a_cpuset_cuts() -> None:
    cut = allow(machine(packages=1, snc=2), [0, 2, 4, 6, *range(8, 14), 16], [0])
    text = picture(cut, ranks=2)
    assert cells(text, "not allowed") == ["CPU 1,3,5,7,17-23", "CPU 14-15,24-31|memory 1"]
    assert cells(text, "rank: cores") == ["0: 0,2,4,6", "1: 8-11"]
    assert cells(text, "its memory") == ["node 0", "any"]
    assert cells(text, "idle cores") == ["", "12-13"]


def test_a_long_list_of_cpus_is_folded() -> None:
    text = picture(allow(machine(ht=False), range(0, 64, 2)))
    assert cells(text, "not allowed")[3] == "CPU 25,27,29,|31"
    assert len(cells(text, "not allowed")) == 4


def test_ranks_that_share_a_cluster_or_span_several() -> None:
    text = picture(machine(packages=1, snc=2), ranks=4)
    assert cells(text, "rank: cores") == ["0: 0-3|1: 4-7", "2: 8-11|3: 12-15"]
    assert cells(text, "its memory") == ["node 0", "node 1"]
    spanning = picture(machine(packages=1, snc=2), ranks=1, reserve_cores=2)
    assert cells(spanning, "rank: cores") == ["0: 0-7", "0: 8-15"]
    assert cells(spanning, "its memory") == ["any", "any"]
    assert "1 rank, 14 threads, 2 of 16 cores in reserve\n" in spanning
    # The second one has cores of two clusters.
    mixed = picture(machine(packages=1, snc=4), ranks=5, threads=6)
    assert cells(mixed, "rank: cores")[:2] == ["0: 0-5|1: 6-7", "1: 8-11|2: 12-15"]
    assert cells(mixed, "its memory")[:2] == ["0: node 0|1: any", "any"]


def test_slow_memory_and_memory_between_clusters() -> None:
    two = machine(packages=1, snc=2)
    nodes = (
        replace(two.nodes[0], distances=(10, 12, 20, 15)),
        replace(two.nodes[1], distances=(12, 10, 30, 15)),
        NumaNode(2, (), 256 * GIB, "other", (20, 30, 10, 40)),
        NumaNode(3, (), 64 * GIB, "hbm", (15, 15, 40, 10)),
    )
    text = picture(replace(two, nodes=nodes, allowed_nodes=(0, 1)))
    assert cells(text, "slow (node)") == ["256 GiB (2)", ""]
    assert cells(text, "not allowed") == ["memory 2", ""]
    assert "\nnode 3: 64 GiB HBM, near to nodes 0-1, not allowed\n" in text
    assert text.endswith("distance of a cluster: 10 to itself, 12 in its socket\n")


def test_a_node_that_spans_sockets() -> None:
    both = machine(packages=2, snc=1, cores=2, ht=False)
    whole = replace(both.nodes[0], cpus=(0, 1, 2, 3), distances=(10,))
    cores = tuple(replace(core, node=0) for core in both.cores)
    assert "┌ sockets 0-1 ─┐\n" in picture(replace(both, cores=cores, nodes=(whole,), allowed_nodes=(0,)))


def test_a_cluster_whose_cores_are_offline_is_memory_alone() -> None:
    text = picture(offline(machine(packages=1, snc=2, ht=False), range(8)))
    assert cells(text, "NUMA node") == ["1"]
    assert cells(text, "DDR") == ["128 GiB"]
    assert cells(text, "DDR (node)") == ["128 GiB (0)"]


@pytest.mark.parametrize(
    ("isa", "says"),
    [
        (None, "bf16: not known, the source does not tell the instructions\n"),
        (("avx512_bf16", "avx512f", "avx2"), "bf16: AVX512-BF16 (avx512_bf16, avx512f, avx2)\n"),
        (("avx512f", "avx2"), "bf16: emulated, slow (avx512f, avx2)\n"),
    ],
)
def test_how_fast_bf16_is(isa: tuple[str, ...] | None, says: str) -> None:
    assert says in picture(replace(machine(), isa=isa))


def test_a_terminal_without_a_size() -> None:
    assert "┌ socket 0 ─┐" in picture(machine(packages=1, snc=1), width=0)


def test_a_path_is_not_broken() -> None:
    path = "/a-b/" * 30 + "node.xml"
    assert path in picture(replace(machine(), source=path))


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 GiB"), (GIB, "1.0 GiB"), (16 * GIB, "16 GiB"), (1007 * GIB, "1007 GiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert format_gib(size) == text


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_fits_into_80_columns(name: str) -> None:
    assert max(map(len, picture(presets.load(name)).splitlines())) <= 80


MACHINES = st.builds(
    machine,
    packages=st.sampled_from([1, 2, 4]),
    snc=st.sampled_from([1, 2, 4]),
    cores=st.integers(1, 16),
    ht=st.booleans(),
    hbm=st.just("flat"),
)


@settings(max_examples=40)
@given(MACHINES, st.integers(30, 200), st.integers(0, 99))
def test_the_boxes_are_straight(topology: Topology, width: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    topology = allow(topology, chance.sample(topology.allowed_cpus, chance.randint(1, len(topology.allowed_cpus))))
    text = table(picture(topology, width=width))
    boxes, _, tail = text.rpartition("┘\n")
    assert tail.startswith("distance of a cluster: ")
    # All lines of a table have their edges at the same places, and it is too wide only if it cannot be narrower.
    for box in f"{boxes}┘\n".split("┘\n")[:-1]:
        lines = f"{box}┘".splitlines()
        edges = [[at for at, sign in enumerate(line) if sign in "│├┼┤└┴┘"] for line in lines[1:]]
        assert all(each == edges[0] for each in edges)
        assert {len(line) for line in lines} == {edges[0][-1] + 1}
        assert len(lines[0]) <= width or len(edges[0]) == 2
