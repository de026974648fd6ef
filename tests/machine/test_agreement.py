"""The sources against each other, and against hwloc itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.machine import hwloc
from glmpatch.machine.sysfs import read_machine
from glmpatch.machine.topology import Topology
from tests.machine.machines import allow, machine, max9462, with_memory_node
from tests.machine.real_files import REAL_FILES, real_file
from tests.machine.sysfs_tree import write_tree

LSTOPO = shutil.which("lstopo-no-graphics") or ""
needs_lstopo = pytest.mark.skipif(not LSTOPO, reason="lstopo-no-graphics is not there (Debian: hwloc-nox)")


def lstopo(*arguments: str) -> Topology:
    """What hwloc itself says."""
    command = [LSTOPO, *arguments, "--disallowed", "--no-io", "--of", "xml"]
    return hwloc.parse(subprocess.run(command, check=True, capture_output=True).stdout, "")


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_kernel_of_a_real_machine_would_say_the_same(tmp_path: Path, name: str) -> None:
    told = hwloc.parse(real_file(name).read_bytes(), str(tmp_path))
    assert len(told.cores) == 64
    assert read_machine(write_tree(tmp_path, replace(told, isa=("amx_tile",)))) == replace(told, isa=("amx_tile",))


@pytest.mark.parametrize("name", REAL_FILES)
def test_a_real_file_survives(name: str) -> None:
    told = hwloc.parse(real_file(name).read_bytes(), "")
    assert hwloc.parse(hwloc.render(told).encode(), "") == told


@needs_lstopo
def test_this_machine() -> None:
    read, told = read_machine(), lstopo()
    assert (read.model, read.cores, read.nodes, read.allowed_nodes) == (
        told.model,
        told.cores,
        told.nodes,
        told.allowed_nodes,
    )
    # hwloc tells what the control group grants, which can be more than our own mask does.
    assert set(read.allowed_cpus) <= set(told.allowed_cpus)


def machines() -> Iterator[Topology]:
    """One of each kind of tree that is written."""
    yield max9462("flat")
    yield max9462("cache")
    yield machine(packages=1, snc=1, cores=1, ht=False)
    yield machine(packages=4, snc=2, cores=1)  # a cluster is a core
    yield machine(packages=4, snc=1, cores=17)
    yield with_memory_node(machine(hbm="flat", packages=1), 256, 25)
    yield allow(max9462("flat"), range(3, 40), [0, 1, 8])


@needs_lstopo
@pytest.mark.parametrize("index", range(len(list(machines()))))
def test_hwloc_reads_what_is_written(tmp_path: Path, index: int) -> None:
    topology = list(machines())[index]
    (tmp_path / "x.xml").write_text(hwloc.render(topology), encoding="utf-8")
    told = lstopo("--input", str(tmp_path / "x.xml"))
    assert told == replace(topology, source="", isa=None)
