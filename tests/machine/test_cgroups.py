from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch.machine import cgroups
from tests.machine.sysfs_tree import write

GB = 1 << 30
UNLIMITED_V1 = 9223372036854771712
V1_LINES = "9:cpuset:/slice/job\n5:cpu,cpuacct:/slice/job\n4:memory:/slice/job\n1:name=systemd:/x:y"
V2_LINES = "0::/slice/job"
TOP = "sys/fs/cgroup"


def tree(root: Path, lines: str, files: dict[str, str]) -> Path:
    write(root, "proc/self/cgroup", lines)
    for path, text in files.items():
        write(root, f"{TOP}/{path}", text)
    return root


def v1_cpu(folder: str, quota: int) -> dict[str, str]:
    return {f"cpu{folder}/cpu.cfs_quota_us": str(quota), f"cpu{folder}/cpu.cfs_period_us": "50000"}


def v1_memory(folder: str, limit: int, used: int, cached: int = 0) -> dict[str, str]:
    folder = f"memory{folder}"
    stat = f"cache 5\nactive_file 1\ninactive_file 1\ntotal_active_file {cached}\ntotal_inactive_file {cached}"
    return {
        f"{folder}/memory.limit_in_bytes": str(limit),
        f"{folder}/memory.usage_in_bytes": str(used),
        f"{folder}/memory.stat": stat,
    }


def v2_memory(folder: str, limit: int | str, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon 5\nfile 6\ninactive_file {cached}\nactive_file {cached}\nunevictable 0"
    return {
        f"{folder}memory.max": str(limit),
        f"{folder}memory.current": str(used),
        f"{folder}memory.stat": stat,
    }


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("", {}, None),
        (V1_LINES, v1_cpu("/slice/job", 125000), 2.5),
        (V1_LINES, v1_cpu("/slice/job", -1), None),
        # The group above has less to give.
        (V1_LINES, {**v1_cpu("/slice/job", 125000), **v1_cpu("/slice", 25000)}, 0.5),
        # Another group than ours.
        (V1_LINES, v1_cpu("/other", 25000), None),
        # In a container: the path is that outside of it, the files are its own.
        (V1_LINES, v1_cpu("", 100000), 2.0),
        # Without links of each controller's name.
        (
            V1_LINES,
            {"cpu,cpuacct/slice/cpu.cfs_quota_us": "75000", "cpu,cpuacct/slice/cpu.cfs_period_us": "50000"},
            1.5,
        ),
        (V2_LINES, {"slice/job/cpu.max": "250000 100000"}, 2.5),
        (V2_LINES, {"slice/job/cpu.max": "max 100000"}, None),
        (V2_LINES, {"slice/job/cpu.max": "max 100000", "slice/cpu.max": "50000 100000"}, 0.5),
        (V2_LINES, {"cpu.max": "50000 100000"}, 0.5),
        (V2_LINES, {"slice/other/cpu.max": "50000 100000"}, None),
        # Seen from a group below that of the mount.
        ("0::/../../job", {"cpu.max": "50000 100000"}, 0.5),
        # Both versions: each controller is in one of them.
        (f"{V1_LINES}\n{V2_LINES}", {"unified/slice/job/cpu.max": "50000 100000"}, 0.5),
        (f"{V1_LINES}\n{V2_LINES}", {"unified/cgroup.procs": "", **v1_cpu("/slice/job", 125000)}, 2.5),
        (V2_LINES, {"slice/job/cpu.max": "nonsense"}, None),
        (V2_LINES, {"slice/job/cpu.max": "100000 0"}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, lines: str, files: dict[str, str], expected: float | None) -> None:
    assert cgroups.cpu_quota(tree(tmp_path, lines, files)) == expected


@pytest.mark.parametrize(
    ("lines", "files", "limit", "left"),
    [
        ("", v2_memory("slice/job/", GB, 0), None, None),
        (V1_LINES, v1_memory("/slice/job", 8 * GB, 3 * GB), 8 * GB, 5 * GB),
        (V1_LINES, v1_memory("/slice/job", UNLIMITED_V1, 3 * GB), None, None),
        # The group above has more, but most of it is in use.
        (
            V1_LINES,
            {**v1_memory("/slice/job", 8 * GB, 3 * GB), **v1_memory("/slice", 9 * GB, 7 * GB)},
            8 * GB,
            2 * GB,
        ),
        (V1_LINES, v1_memory("", 4 * GB, 1 * GB), 4 * GB, 3 * GB),
        # Files that are kept in memory go when somebody needs it.
        (V1_LINES, v1_memory("/slice/job", 8 * GB, 8 * GB, cached=GB), 8 * GB, 2 * GB),
        (V1_LINES, v1_memory("/slice/job", 8 * GB, 9 * GB), 8 * GB, 0),
        (V1_LINES, v1_memory("/other", 1 * GB, 0), None, None),
        # The other version is not asked.
        (V1_LINES, v2_memory("", 0, 0), None, None),
        (V2_LINES, v2_memory("slice/job/", 8 * GB, 3 * GB), 8 * GB, 5 * GB),
        (V2_LINES, v2_memory("slice/job/", "max", 3 * GB), None, None),
        (V2_LINES, {**v2_memory("slice/job/", "max", 3 * GB), **v2_memory("slice/", 9 * GB, 7 * GB)}, 9 * GB, 2 * GB),
        (V2_LINES, v2_memory("", 4 * GB, 1 * GB), 4 * GB, 3 * GB),
        (V2_LINES, v2_memory("slice/job/", 8 * GB, 8 * GB, cached=GB), 8 * GB, 2 * GB),
    ],
)
def test_memory(tmp_path: Path, lines: str, files: dict[str, str], limit: int | None, left: int | None) -> None:
    root = tree(tmp_path, lines, files)
    assert (cgroups.memory_limit(root), cgroups.memory_left(root)) == (limit, left)


@pytest.mark.parametrize(
    ("lines", "name", "function"),
    [
        (V1_LINES, "cpuset/slice/job/cpuset.effective_cpus", cgroups.allowed_cpus),
        (V1_LINES, "cpuset/slice/cpuset.cpus", cgroups.allowed_cpus),
        (V1_LINES, "cpuset/cpuset.mems", cgroups.allowed_nodes),
        (V2_LINES, "slice/job/cpuset.cpus.effective", cgroups.allowed_cpus),
        (V2_LINES, "slice/cpuset.mems.effective", cgroups.allowed_nodes),
        (V2_LINES, "cpuset.mems.effective", cgroups.allowed_nodes),
    ],
)
def test_cpuset(tmp_path: Path, lines: str, name: str, function: Callable[[Path], tuple[int, ...] | None]) -> None:
    assert function(tree(tmp_path, lines, {name: "1-3,70"})) == (1, 2, 3, 70)


def test_what_is_in_force_goes_before_what_was_asked_for(tmp_path: Path) -> None:
    files = {"slice/job/cpuset.cpus": "0-7", "slice/job/cpuset.cpus.effective": "4-7", "cpuset.cpus.effective": "0-63"}
    assert cgroups.allowed_cpus(tree(tmp_path, V2_LINES, files)) == (4, 5, 6, 7)


def test_an_empty_cpuset_is_that_of_the_group_above(tmp_path: Path) -> None:
    files = {"slice/job/cpuset.cpus": "", "slice/cpuset.cpus": "2-3"}
    assert cgroups.allowed_cpus(tree(tmp_path, V2_LINES, files)) == (2, 3)


def test_without_control_groups(tmp_path: Path) -> None:
    assert cgroups.allowed_cpus(tmp_path) is None
    assert cgroups.allowed_nodes(tmp_path) is None
