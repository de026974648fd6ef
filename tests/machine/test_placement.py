from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.errors import UsageError
from glmpatch.machine.placement import Placement, nearest_clusters, place
from glmpatch.machine.topology import HbmMode, Topology, format_cpu_list, parse_cpu_list
from tests.machine.machines import allow, machine, max9462, offline


def cpus(placement: Placement) -> list[str]:
    return [format_cpu_list(seat.cpus) for seat in placement.seats]


def sizes(*cores: int, snc: int = 4) -> Topology:
    """The machine of the recipe, of whose clusters we may use so many cores."""
    topology = machine(packages=len(cores) // snc, snc=snc)
    return allow(topology, [8 * cluster + core for cluster, count in enumerate(cores) for core in range(count)])


@pytest.mark.parametrize("mode", ["cache", "flat", "only"])
def test_the_recipe(mode: HbmMode) -> None:
    placement = place(max9462(mode))
    assert cpus(placement) == ["0-7", "8-15", "16-23", "24-31", "32-39", "40-47", "48-55", "56-63"]
    assert placement.threads == 8
    assert [seat.rank for seat in placement.seats] == list(range(8))
    assert [seat.clusters for seat in placement.seats] == [(number,) for number in range(8)]
    assert [seat.memory_node for seat in placement.seats] == list(range(8, 16) if mode == "flat" else range(8))
    assert placement.seats[1].cores[0].cpus == (8, 72)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, ["0-63"]),
        (2, ["0-31", "32-63"]),
        (3, ["0-15", "16-31", "32-47"]),
        (4, ["0-15", "16-31", "32-47", "48-63"]),
        # Six clusters, three of each package, leave fewer cores idle than six equal parts of packages gain.
        (6, ["0-7", "8-15", "16-23", "32-39", "40-47", "48-55"]),
        (7, ["0-7", "8-15", "16-23", "24-31", "32-39", "40-47", "48-55"]),
        # One rank a cluster would leave a cluster for the ninth alone: parts of packages it is.
        (9, ["0-5", "6-11", "12-17", "18-23", "24-29", "32-37", "38-43", "44-49", "50-55"]),
        (16, [f"{first}-{first + 3}" for first in range(0, 64, 4)]),
        (64, [str(cpu) for cpu in range(64)]),
    ],
)
def test_as_many_ranks_as_asked_for(ranks: int, expected: list[str]) -> None:
    placement = place(machine(), ranks=ranks)
    assert cpus(placement) == expected
    assert placement.threads == len(placement.seats[0].cores)


def test_three_ranks_on_two_clusters_stay_in_them() -> None:
    assert cpus(place(machine(packages=2, snc=1), ranks=3)) == ["0-3", "4-7", "8-11"]


@pytest.mark.parametrize("hbm", ["none", "flat"])
def test_a_rank_that_spans_clusters_prefers_no_memory(hbm: HbmMode) -> None:
    placement = place(max9462(hbm), ranks=2)
    assert [(seat.clusters, seat.memory_node) for seat in placement.seats] == [
        ((0, 1, 2, 3), None),
        ((4, 5, 6, 7), None),
    ]


def test_threads_fewer_than_cores() -> None:
    placement = place(machine(packages=1, snc=2), threads=3)
    assert cpus(placement) == ["0-2", "8-10"]
    assert placement.threads == 3
    assert cpus(place(machine(packages=1, snc=2), threads=3, reserve_cores=2)) == ["0-4", "8-12"]


def test_threads_that_only_a_span_of_clusters_has_cores_for() -> None:
    assert cpus(place(machine(), ranks=4, threads=16)) == ["0-15", "16-31", "32-47", "48-63"]
    # More than three quarters of them are within a cluster, but those who ask for all of them get them.
    assert cpus(place(machine(packages=1, snc=3), ranks=2, threads=12)) == ["0-11", "12-23"]


def test_reserved_cores_stay_with_the_rank() -> None:
    placement = place(machine(), reserve_cores=2)
    assert placement.threads == 6
    assert cpus(placement)[:2] == ["0-7", "8-15"]
    # Which leaves no doubt that clusters are right, however few threads remain.
    assert place(machine(), reserve_cores=7).threads == 1


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"ranks": 130}, "130 ranks need 130 cores, 64 are usable (CPUs 0-127 of test machine)", "--ranks 64"),
        ({"threads": 9}, "8 ranks of 9 threads need 72 cores, 64 are usable", "--ranks 7 or --threads 8"),
        ({"ranks": 1, "threads": 65}, "1 rank of 65 threads needs 65 cores, 64 are usable", "--threads 64"),
        (
            {"reserve_cores": 8},
            "8 ranks of 1 thread and 8 cores in reserve each need 72 cores, 64 are usable",
            "--ranks 7 or --reserve-cores 7",
        ),
        (
            {"ranks": 4, "threads": 16, "reserve_cores": 1},
            "4 ranks of 16 threads and 1 core in reserve each need 68 cores",
            "--ranks 3 or --threads 15",
        ),
        ({"ranks": 65, "threads": 65}, "65 ranks of 65 threads need 4225 cores", "ask for less of each"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(options: dict[str, int], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        place(machine(), **options)
    assert refused.value.message.startswith(message)
    assert refused.value.hint.removeprefix("what fits: ") == hint


def test_what_fits_does_fit() -> None:
    assert len(place(machine(), ranks=7, threads=9).seats) == 7
    assert place(machine(), threads=8).threads == 8
    assert place(machine(), reserve_cores=7).threads == 1


def test_a_refusal_tells_what_the_cpuset_leaves() -> None:
    with pytest.raises(
        UsageError, match=r"^3 ranks need 3 cores, 2 of 64 are usable \(CPUs 9-10,73 of test machine\)$"
    ):
        place(allow(machine(), [9, 10, 73]), ranks=3)
    with pytest.raises(UsageError, match=r"^2 ranks need 2 cores, 1 of 64 is usable"):
        place(allow(machine(), [9]), ranks=2)
    with pytest.raises(UsageError, match=r"^none of the CPUs of test machine may be used$"):
        place(allow(machine(), []))


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (sizes(8, 8, 8, 1), ["0-7", "8-15", "16-23"]),
        (sizes(8, 8, 8, 7), ["0-6", "8-14", "16-22", "24-30"]),
        (sizes(8, 0, 0, 0, 8, 0, 0, 0), ["0-7", "32-39"]),
        (sizes(1, 1, 1, 0, 0, 0, 0, 1), ["0", "8", "16", "56"]),
        (sizes(0, 0, 5, 0), ["16-20"]),
        # What is left of the clusters is so uneven that the packages together make more of it.
        (sizes(8, 4, 2, 1, 8, 5, 2, 0), ["0-7,8-11,16-17,24", "32-39,40-44,48-49"]),
        (sizes(8, 4, 4, 1), ["0-7,8-11,16-19,24"]),
        # But nothing by itself spans packages.
        (sizes(8, 4, snc=1), ["0-7"]),
        (sizes(7, 3, 1, 1, 1, 0, 0, 0), ["0-6,8-10,16,24"]),
        (allow(machine(), [70, 71]), ["70-71"]),
        (allow(machine(packages=1, snc=1), [5]), ["5"]),
    ],
)
def test_what_a_cpuset_leaves(topology: Topology, expected: list[str]) -> None:
    assert cpus(place(topology)) == [format_cpu_list(parse_cpu_list(each)) for each in expected]


def test_cores_that_are_offline_count_as_gone() -> None:
    placement = place(offline(machine(packages=1, snc=2, ht=False), [0, 1]))
    assert cpus(placement) == ["2-7", "8-13"]


@pytest.mark.parametrize(
    ("quota", "ranks", "threads"),
    [(0.5, 1, 1), (1.5, 1, 1), (4.0, 1, 4), (8.0, 1, 8), (9.0, 1, 8), (12.0, 2, 6), (60.0, 7, 8), (1000.0, 8, 8)],
)
def test_a_quota_of_cpu_time_bounds_all_threads(quota: float, ranks: int, threads: int) -> None:
    topology = replace(machine(), cpu_quota=quota)
    placement = place(topology)
    assert (len(placement.seats), placement.threads) == (ranks, threads)


def test_a_quota_takes_its_share_of_the_ranks_that_are_asked_for() -> None:
    topology = replace(machine(), cpu_quota=6.0)
    assert place(topology, ranks=2).threads == 3
    assert [len(seat.cores) for seat in place(topology, ranks=2, reserve_cores=1).seats] == [4, 4]
    with pytest.raises(
        UsageError, match=r"^7 ranks need the time of 7 CPUs, the control group grants that of 6$"
    ) as no:
        place(topology, ranks=7)
    assert no.value.hint == "what fits: --ranks 6"
    with pytest.raises(UsageError, match=r"^2 ranks of 4 threads need the time of 8 CPUs") as no:
        place(topology, ranks=2, threads=4)
    assert no.value.hint == "what fits: --ranks 1 or --threads 3"


def test_memory_that_may_not_be_used_is_not_preferred() -> None:
    flat = max9462("flat")
    everything = range(128)
    without_first = place(allow(flat, everything, {*range(8), *range(9, 16)}))
    # Not the HBM of its neighbour, which is that one's.
    assert [seat.memory_node for seat in without_first.seats][:3] == [0, 9, 10]
    assert [seat.memory_node for seat in place(allow(flat, everything, [1, 9])).seats][:3] == [None, 9, None]


def test_a_cluster_without_memory_prefers_none() -> None:
    topology = machine(packages=1, snc=2)
    bare = replace(topology, nodes=(replace(topology.nodes[0], memory=0), topology.nodes[1]))
    assert [seat.memory_node for seat in place(bare).seats] == [None, 1]


def test_memory_that_is_as_near_to_all_clusters_of_a_package() -> None:
    flat = machine(packages=1, snc=2, hbm="flat")
    even = replace(flat, nodes=tuple(replace(node, distances=(*node.distances[:2], 13, 13)) for node in flat.nodes))
    assert nearest_clusters(even, even.nodes[2]) == (0, 1)
    assert nearest_clusters(flat, flat.nodes[3]) == (1,)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    topology = machine(
        packages=draw(st.sampled_from([1, 2, 4])),
        snc=draw(st.sampled_from([1, 2, 4])),
        cores=draw(st.integers(1, 12)),
        ht=draw(st.booleans()),
        hbm=draw(st.sampled_from(["none", "flat", "cache", "only"])),
    )
    allowed = draw(
        st.one_of(st.just(topology.allowed_cpus), st.sets(st.sampled_from(topology.allowed_cpus), min_size=1))
    )
    nodes = draw(st.one_of(st.none(), st.sets(st.sampled_from(topology.allowed_nodes))))
    quota = draw(st.one_of(st.none(), st.floats(0.1, 100)))
    return replace(allow(topology, allowed, nodes), cpu_quota=quota)


def check_fair(topology: Topology, placement: Placement, reserve_cores: int) -> None:
    """Assert that no core is given twice, all ranks have as much, and nothing that is not ours."""
    taken = [core for seat in placement.seats for core in seat.cores]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(topology.usable_cores)
    assert {cpu for seat in placement.seats for cpu in seat.cpus} <= set(topology.allowed_cpus)
    assert {len(seat.cores) for seat in placement.seats} == {placement.threads + reserve_cores}
    assert placement.threads >= 1
    if topology.cpu_quota is not None:
        assert len(placement.seats) * placement.threads <= max(1, topology.cpu_quota)
    for rank, seat in enumerate(placement.seats):
        assert seat.rank == rank
        assert set(seat.clusters) == {core.node for core in seat.cores}
        assert seat.memory_node is None or seat.memory_node in topology.allowed_nodes
    shuffled = replace(topology, cores=topology.cores[::-1])
    asked = {"ranks": len(placement.seats), "threads": placement.threads, "reserve_cores": reserve_cores}
    assert place(shuffled, **asked) == place(topology, **asked)


@settings(max_examples=80)
@given(topologies())
def test_by_default_something_always_fits(topology: Topology) -> None:
    placement = place(topology)
    check_fair(topology, placement, 0)
    assert len(placement.seats) <= len({core.node for core in topology.usable_cores})
    # Most of what is ours is used.
    ours = min(len(topology.usable_cores), max(1, int(topology.cpu_quota or 10000)))
    assert len(placement.seats) * placement.threads * 2 >= ours


@settings(max_examples=80)
@given(topologies(), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 8)), st.integers(0, 3))
def test_what_is_asked_for_fits_or_is_refused(
    topology: Topology, ranks: int, threads: int | None, reserve_cores: int
) -> None:
    usable, busy = len(topology.usable_cores), threads or 1
    fits = ranks * (busy + reserve_cores) <= usable
    in_time = topology.cpu_quota is None or ranks * busy <= max(1, int(topology.cpu_quota))
    try:
        placement = place(topology, ranks=ranks, threads=threads, reserve_cores=reserve_cores)
    except UsageError:
        assert not (fits and in_time)
        return
    assert fits
    assert in_time
    check_fair(topology, placement, reserve_cores)
    assert len(placement.seats) == ranks
    assert threads in {None, placement.threads}
