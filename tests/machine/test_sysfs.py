from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.errors import EnvironmentLacksError
from glmpatch.machine.read import read_topology
from glmpatch.machine.sysfs import read_machine
from glmpatch.machine.topology import HbmMode, NumaNode, Topology
from tests.machine.machines import GIB, XEON, XEON_MAX, allow, machine, offline, with_memory_node
from tests.machine.sysfs_tree import CPU, NODE, write, write_tree

BLIND = "/sys/devices/system/cpu does not tell the CPUs: taken from /proc."
NO_CORES = "The cores are not told: each CPU is taken for one."
NO_PACKAGES = "The packages are not told: taken for one."
NO_NUMA = "/sys/devices/system/node is not there: taken for one NUMA node."


def check_same(root: Path, topology: Topology) -> None:
    """Assert that the machine reads back as it was written."""
    assert read_machine(write_tree(root, topology)) == replace(topology, source=str(root))


@pytest.mark.parametrize("hbm", ["none", "only", "flat", "cache"])
@pytest.mark.parametrize("snc", [1, 2, 4])
def test_each_mode_of_the_memory(tmp_path: Path, hbm: HbmMode, snc: int) -> None:
    topology = machine(hbm=hbm, snc=snc, cores=2)
    check_same(tmp_path, topology)
    assert (topology.hbm_mode, topology.snc) == (hbm, snc)


@pytest.mark.parametrize(("packages", "ht", "last"), [(1, False, 35), (4, True, 287)])
def test_up_to_more_than_256_cpus(tmp_path: Path, packages: int, ht: bool, last: int) -> None:
    topology = machine(packages=packages, snc=4, cores=9, ht=ht)
    check_same(tmp_path, topology)
    assert topology.allowed_cpus[-1] == last
    assert topology.threads_per_core == (2 if ht else 1)


def test_two_digit_nodes_are_sorted_by_number(tmp_path: Path) -> None:
    check_same(tmp_path, machine(hbm="flat", cores=1))
    read = read_machine(tmp_path)
    assert [node.number for node in read.nodes] == list(range(16))
    assert read.nearest_hbm(2) == read.node(10)


def test_sparse_node_numbers(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=1, cores=2)
    renumbered = {0: 2, 1: 13}
    check_same(
        tmp_path,
        replace(
            topology,
            cores=tuple(replace(core, node=renumbered[core.node]) for core in topology.cores),
            nodes=tuple(replace(node, number=renumbered[node.number]) for node in topology.nodes),
            allowed_nodes=(2, 13),
        ),
    )


def test_offline_cpus(tmp_path: Path) -> None:
    # A whole core, a thread of another one, and the first CPU.
    check_same(tmp_path, offline(machine(cores=2), {0, 3, 19, 10, 26}))


def test_a_cluster_that_is_offline_keeps_its_kind(tmp_path: Path) -> None:
    whole = machine(packages=1, snc=2, cores=2)
    topology = offline(whole, whole.node(1).cpus)
    write_tree(tmp_path, topology)
    # The kernel goes on to list the CPUs of the node.
    write(tmp_path, f"{NODE}/node1/cpu2/uevent", "")
    assert read_machine(tmp_path) == replace(topology, source=str(tmp_path))
    assert topology.node(1) == NumaNode(1, (), 128 * GIB, "ddr", (12, 10))


def test_a_cpuset_without_the_first_cpu(tmp_path: Path) -> None:
    check_same(tmp_path, allow(machine(cores=2), [*range(5, 14), *range(20, 32)], [1, 2, 3]))


def test_the_cpuset_of_the_control_group_counts_too(tmp_path: Path) -> None:
    write_tree(tmp_path, machine(packages=1, snc=1, cores=8))
    write(tmp_path, "sys/fs/cgroup/job/cpuset.cpus.effective", "2-3,99")
    assert read_machine(tmp_path).allowed_cpus == (2, 3)
    # That of another machine, on which this one runs as a guest.
    write(tmp_path, "sys/fs/cgroup/job/cpuset.cpus.effective", "200-210")
    assert read_machine(tmp_path).allowed_cpus == tuple(range(16))


def test_a_container_that_tells_as_many_cpus_as_it_grants_the_time_of(tmp_path: Path) -> None:
    write_tree(tmp_path, allow(machine(packages=1, snc=1, cores=8, ht=False), [4, 5]))
    write(tmp_path, f"{CPU}/online", "0-1")
    read = read_machine(tmp_path)
    assert read.allowed_cpus == (4, 5)
    assert [core.cpus for core in read.usable_cores] == [(4,), (5,)]


def test_limits_of_the_control_group(tmp_path: Path) -> None:
    check_same(tmp_path, replace(machine(packages=1, snc=1, cores=2), cpu_quota=2.5, memory_limit=40 * GIB))


def test_asymmetric_nodes(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=2, cores=4)
    small = offline(topology, {0, 1, 2, 16, 17, 18})
    check_same(tmp_path, replace(small, nodes=(replace(small.nodes[0], memory=8 * GIB), *small.nodes[1:])))


def test_a_node_without_memory(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=1, cores=2)
    check_same(tmp_path, replace(topology, nodes=(topology.nodes[0], replace(topology.nodes[1], memory=0))))


def test_slower_memory_is_no_hbm(tmp_path: Path) -> None:
    topology = with_memory_node(machine(packages=1, snc=1, cores=2), 512, 17)
    note = "Nothing tells what the memory of node 1 is: taken for slower than DDR."
    check_same(tmp_path, replace(topology, notes=(note,)))
    assert topology.hbm_mode == "none"


@pytest.mark.parametrize("mode", ["only", "flat", "cache"])
@pytest.mark.parametrize("snc", [1, 4])
def test_slower_memory_beside_hbm(tmp_path: Path, mode: HbmMode, snc: int) -> None:
    # As near as the HBM is.
    topology = with_memory_node(machine(hbm=mode, packages=1, snc=snc, cores=2), 128, 13)
    check_same(tmp_path, topology)
    assert topology.hbm_mode == mode


@pytest.mark.parametrize(
    ("model", "gib", "bandwidth", "expected"),
    [
        # Faster than the memory of the CPUs, whatever they are called.
        ("Some CPU", 32, 700_000, "hbm"),
        (XEON_MAX, 256, 700_000, "hbm"),
        # Not faster: then it is not HBM, even of its size.
        (XEON_MAX, 64, 60_000, "other"),
        (XEON, 64, 200_000, "other"),
        # As fast as that: by name and size, as where nothing is told.
        (XEON_MAX, 64, 200_000, "hbm"),
        (XEON, 64, 60_000, "other"),
        (XEON_MAX, 64, 0, "hbm"),
        (XEON_MAX, 63, 0, "hbm"),
        (XEON_MAX.upper(), 64, 0, "hbm"),
        (XEON_MAX, 32, 0, "other"),
        (XEON_MAX, 96, 0, "other"),
        (XEON, 64, 0, "other"),
        ("", 64, 0, "other"),
    ],
)
def test_kind_of_memory_without_cpus(tmp_path: Path, model: str, gib: int, bandwidth: int, expected: str) -> None:
    topology = with_memory_node(replace(machine(packages=1, snc=1, cores=2), model=model), gib, 13)
    write_tree(tmp_path, topology)
    write(tmp_path, f"{NODE}/node0/access0/initiators/read_bandwidth", "200000")
    if bandwidth:
        write(tmp_path, f"{NODE}/node1/access0/initiators/read_bandwidth", str(bandwidth))
    assert read_machine(tmp_path).node(1).kind == expected


def test_a_second_node_of_its_size_is_not_hbm(tmp_path: Path) -> None:
    topology = machine(hbm="flat", packages=1, snc=1, cores=2)
    check_same(tmp_path, with_memory_node(topology, 64, 14))


def test_little_ddr_on_a_xeon_max_is_no_hbm(tmp_path: Path) -> None:
    check_same(tmp_path, replace(machine(packages=1, snc=4, cores=2, ddr=8), model=XEON_MAX))


def test_a_cache_of_other_memory_is_no_hbm(tmp_path: Path) -> None:
    # DDR in front of persistent memory.
    topology = replace(machine(packages=1, snc=1, cores=2), model=XEON)
    write_tree(tmp_path, replace(topology, nodes=(replace(topology.nodes[0], cache=96 * GIB),)))
    read = read_machine(tmp_path)
    assert read.hbm_mode == "none"
    assert read.nodes == topology.nodes
    assert read.notes == ("The memory of node 0 has a cache, but not of HBM: it is not counted.",)


def test_no_numa_in_the_kernel(tmp_path: Path) -> None:
    topology = machine(packages=1, snc=1, cores=4)
    write_tree(tmp_path, topology)
    shutil.rmtree(tmp_path / NODE)
    assert read_machine(tmp_path) == replace(topology, source=str(tmp_path), notes=(NO_NUMA,))


def test_no_distances(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=1, cores=2)
    write_tree(tmp_path, topology)
    (tmp_path / NODE / "node1/distance").unlink()
    read = read_machine(tmp_path)
    assert [node.distances for node in read.nodes] == [(10, 20), (20, 10)]
    assert read.notes == ("The distances of the NUMA nodes are not told: guessed.",)


def test_a_node_that_does_not_tell_its_cpus(tmp_path: Path) -> None:
    write_tree(tmp_path, machine(packages=2, snc=1, cores=1))
    (tmp_path / NODE / "node1/cpulist").unlink()
    read = read_machine(tmp_path)
    assert [(core.package, core.node) for core in read.cores] == [(0, 0), (1, 0)]
    assert read.node(0).cpus == (0, 1, 2, 3)
    assert read.notes[0] == "The NUMA node of some CPUs is not told: taken for node 0."


def test_a_node_that_is_offline(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=1, cores=1)
    write_tree(tmp_path, topology)
    write(tmp_path, f"{NODE}/node5/cpulist", "")
    assert read_machine(tmp_path) == replace(topology, source=str(tmp_path))


def test_no_package_numbers(tmp_path: Path) -> None:
    topology = machine(packages=1, snc=1, cores=2)
    write_tree(tmp_path, topology)
    for cpu in range(4):
        write(tmp_path, f"{CPU}/cpu{cpu}/topology/physical_package_id", "-1")
    assert read_machine(tmp_path) == replace(topology, source=str(tmp_path), notes=(NO_PACKAGES,))


def test_older_kernels_name_the_siblings_otherwise(tmp_path: Path) -> None:
    topology = machine(packages=1, snc=1, cores=2)
    write_tree(tmp_path, topology)
    for file in tmp_path.glob(f"{CPU}/*/topology/core_cpus_list"):
        file.rename(file.with_name("thread_siblings_list"))
    assert read_machine(tmp_path) == replace(topology, source=str(tmp_path))


def test_a_container_without_sysfs(tmp_path: Path) -> None:
    topology = machine(packages=2, snc=1, cores=2)
    write_tree(tmp_path, topology)
    shutil.rmtree(tmp_path / "sys")
    read = read_machine(tmp_path)
    assert [(core.package, core.cpus) for core in read.cores] == [(core.package, core.cpus) for core in topology.cores]
    assert read.nodes == (NumaNode(0, tuple(range(8)), 256 * GIB, "ddr", (10,)),)
    assert (read.model, read.isa, read.allowed_cpus) == (XEON, topology.isa, topology.allowed_cpus)
    assert read.notes == (BLIND, NO_NUMA)


def test_a_container_that_hides_nearly_all(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "Cpus_allowed_list:\t4-5")
    read = read_machine(tmp_path)
    assert [core.cpus for core in read.cores] == [(4,), (5,)]
    assert (read.model, read.isa, read.allowed_cpus, read.allowed_nodes) == ("", None, (4, 5), (0,))
    assert read.notes == (BLIND, NO_CORES, NO_PACKAGES, NO_NUMA)


def test_a_machine_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"neither sys/devices/system/cpu nor proc/cpuinfo") as caught:
        read_machine(tmp_path)
    assert "--topology" in caught.value.hint


def test_arm_has_other_instructions(tmp_path: Path) -> None:
    write_tree(tmp_path, machine(packages=1, snc=1, cores=1, ht=False))
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16")
    assert read_machine(tmp_path).isa is None


def test_files_that_make_no_sense(tmp_path: Path) -> None:
    topology = machine(packages=1, snc=1, cores=2)
    write_tree(tmp_path, topology)
    for path in (f"{NODE}/node0/distance", f"{NODE}/node0/meminfo", f"{CPU}/cpu0/topology/physical_package_id"):
        write(tmp_path, path, "?")
    write(tmp_path, "proc/self/status", "Cpus_allowed_list:\t0-99999999999")
    read = read_machine(tmp_path)
    assert (read.allowed_cpus, read.nodes[0].memory) == (topology.allowed_cpus, 0)


def test_this_machine() -> None:
    read = read_topology(None)
    assert read.source == "this machine"
    assert set(read.allowed_cpus) == os.sched_getaffinity(0)
    assert read.allowed_nodes
    assert sorted(cpu for core in read.cores for cpu in core.cpus) == sorted(cpu for n in read.nodes for cpu in n.cpus)
