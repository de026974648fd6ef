from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from glmpatch.doctor.machine import hbm, memory, numa
from glmpatch.doctor.row import Row, State
from glmpatch.machine.memory import MemoryPlan, plan_memory
from glmpatch.machine.need import CHATGLM_6B, Workload, rank_need
from glmpatch.machine.placement import place
from glmpatch.machine.topology import Topology
from glmpatch.patching.model import Dtype
from tests.doctor.support import is_fine
from tests.machine.machines import machine, max9462
from tests.machine.sysfs_tree import write, write_tree


def plans(topology: Topology, ranks: int | None = None) -> dict[Dtype, MemoryPlan]:
    placement = place(topology, ranks=ranks)
    return {
        dtype: plan_memory(topology, placement, rank_need(CHATGLM_6B, Workload(dtype=dtype)))
        for dtype in get_args(Dtype)
    }


def judge(root: Path, topology: Topology, dtype: Dtype = "bf16") -> Row:
    return memory(write_tree(root, topology), topology, plans(topology), dtype, None)


def test_clusters_and_ranks() -> None:
    topology = max9462()
    row = numa(topology, place(topology))
    assert is_fine(row)
    assert "2 packages, 8 NUMA nodes with CPUs, 64 cores" in row.evidence
    assert "4 clusters a package: 8 ranks of 8 threads" in row.evidence
    assert "no sub-NUMA clustering" in numa(machine(snc=1), place(machine(snc=1))).evidence
    guessed = replace(topology, notes=("Something is guessed.",))
    assert numa(guessed, place(topology)).evidence.endswith("Something is guessed.")


def test_the_mode_of_hbm(tmp_path: Path) -> None:
    def judge_mode(topology: Topology, ranks: int | None = None) -> Row:
        return hbm(tmp_path, topology, plans(topology, ranks)["bf16"])

    assert is_fine(judge_mode(max9462("cache")))
    row = judge_mode(max9462("flat"))
    assert row.state is State.WARN
    assert row.mend == "sudo systemctl reboot --firmware-setup"
    assert "in mode cache" in row.evidence
    # One rank a package has the HBM of four clusters.
    assert is_fine(judge_mode(machine(snc=1, cores=32, hbm="flat"), 2))
    assert "none" in judge_mode(machine()).evidence


def test_hbm_that_the_kernel_sets_apart(tmp_path: Path) -> None:
    topology = replace(machine(), model=max9462().model)
    assert is_fine(hbm(tmp_path, topology, plans(topology)["bf16"]))
    for name in ("dax1.0", "dax0.0"):
        write(tmp_path, f"sys/bus/dax/devices/{name}/size", "1")
    row = hbm(tmp_path, topology, plans(topology)["bf16"])
    assert row.mend == "sudo daxctl reconfigure-device --mode=system-ram dax0.0 dax1.0"
    # Persistent memory of another Xeon.
    assert is_fine(hbm(tmp_path, machine(), plans(machine())["bf16"]))


def test_memory_that_is_there_and_free(tmp_path: Path) -> None:
    row = judge(tmp_path, machine())
    assert is_fine(row)
    assert "free now by MemAvailable in /proc/meminfo" in row.evidence
    write(tmp_path, "proc/meminfo", "MemTotal: 1000000000 kB\nMemAvailable: 20000000 kB")
    row = memory(tmp_path, machine(), plans(machine()), "bf16", None)
    assert row.state is State.WARN
    assert "20.5 GB free now" in row.evidence
    assert row.mend.startswith("ps ")
    (tmp_path / "proc/meminfo").unlink()
    assert "unknown" in memory(tmp_path, machine(), plans(machine()), "bf16", None).evidence


def test_memory_of_the_control_group(tmp_path: Path) -> None:
    topology = replace(machine(packages=1, snc=1), memory_limit=24 * 10**9)
    write_tree(tmp_path, topology)
    write(tmp_path, "sys/fs/cgroup/job/memory.current", str(20 * 10**9))
    row = memory(tmp_path, topology, plans(topology), "bf16", None)
    assert row.state is State.WARN
    assert "4.0 GB free now by the control group" in row.evidence


def test_fewer_ranks_where_all_do_not_fit(tmp_path: Path) -> None:
    small = machine(packages=2, snc=4, ddr=8)
    row = judge(tmp_path, small)
    assert row.state is State.FAIL
    words = shlex.split(row.mend)
    assert words[:3] == ["glmpatch", "launch", "--ranks"]
    most = int(words[3])
    assert plans(small, most)["bf16"].verdict == "fits"
    assert plans(small, most + 1)["bf16"].verdict != "fits"


@pytest.mark.parametrize(("ddr", "mend"), [(24, "glmpatch apply ./ChatGLM-6B --dtype bf16"), (8, "glmpatch demo  # ")])
def test_one_rank_that_does_not_fit(tmp_path: Path, ddr: int, mend: str) -> None:
    row = judge(tmp_path, machine(packages=1, snc=1, ddr=ddr), "fp32")
    assert row.state is State.FAIL
    assert row.mend.startswith(mend)
