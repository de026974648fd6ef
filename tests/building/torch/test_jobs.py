from __future__ import annotations

import os
from pathlib import Path

import pytest

from glmpatch.building.torch import jobs
from glmpatch.building.torch.jobs import default_jobs, usable_cores, usable_memory
from tests.git_support import make_folder

GB = 1 << 30
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
UNLIMITED_V1 = 9223372036854771712


def machine(root: Path, cgroup: str, files: dict[str, str], available: int = 64 * GB) -> Path:
    meminfo = f"MemTotal:       99 kB\nMemFree:        1 kB\nMemAvailable:   {available // 1024} kB\nSwapFree: 7 kB\n"
    texts = {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup, **files}
    return make_folder(root, {path: text.encode() for path, text in texts.items()})


def v1(folder: str, limit: int, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"cache 5\nactive_file 1\ninactive_file 1\ntotal_active_file {cached}\ntotal_inactive_file {cached}\n"
    return {
        f"{V1}{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{V1}{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{V1}{folder}/memory.stat": stat,
    }


def v2(folder: str, limit: int | str, used: int, cached: int = 0) -> dict[str, str]:
    return {
        f"{V2}{folder}/memory.max": f"{limit}\n",
        f"{V2}{folder}/memory.current": f"{used}\n",
        f"{V2}{folder}/memory.stat": f"anon 5\nfile 6\ninactive_file {cached}\nactive_file {cached}\nunevictable 0\n",
    }


V1_LINES = "5:cpu,cpuacct:/other\n4:memory:/slice/job\n1:name=systemd:/x:y\n"


def test_without_control_groups(tmp_path: Path) -> None:
    assert usable_memory(machine(tmp_path / "a", "", {})) == 64 * GB
    make_folder(tmp_path / "b", {"proc/meminfo": b"MemAvailable:   1024 kB\n"})
    assert usable_memory(tmp_path / "b") == 1 << 20
    make_folder(tmp_path / "c", {"proc/meminfo": b"MemTotal:   1024 kB\n"})
    assert usable_memory(tmp_path / "c") == 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v1("/slice/job", 8 * GB, 3 * GB), 5 * GB),
        (v1("/slice/job", UNLIMITED_V1, 3 * GB), 64 * GB),
        # The group above has less to give.
        ({**v1("/slice/job", 8 * GB, 3 * GB), **v1("/slice", 9 * GB, 7 * GB)}, 2 * GB),
        # In a container: the path is that outside of it, the files are its own.
        (v1("", 4 * GB, 1 * GB), 3 * GB),
        # Files that are kept in memory go when somebody needs it.
        (v1("/slice/job", 8 * GB, 8 * GB, cached=GB), 2 * GB),
        (v1("/slice/job", 8 * GB, 9 * GB), 0),
        # Another group than ours.
        (v1("/other", 1 * GB, 0), 64 * GB),
        ({"sys/fs/cgroup/memory.max": "0\n", "sys/fs/cgroup/memory.current": "0\n"}, 64 * GB),
    ],
)
def test_version_1(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_memory(machine(tmp_path, V1_LINES, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v2("/slice/job", 8 * GB, 3 * GB), 5 * GB),
        (v2("/slice/job", "max", 3 * GB), 64 * GB),
        ({**v2("/slice/job", "max", 3 * GB), **v2("/slice", 9 * GB, 7 * GB)}, 2 * GB),
        (v2("", 4 * GB, 1 * GB), 3 * GB),
        (v2("/slice/job", 8 * GB, 8 * GB, cached=GB), 2 * GB),
        (v2("/slice/job", 99 * GB, 0), 64 * GB),
    ],
)
def test_version_2(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_memory(machine(tmp_path, "0::/slice/job\n", files)) == expected


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    assert 0 < usable_memory() < 1 << 50
    assert default_jobs(1e-6) == usable_cores()
    assert default_jobs(1e6) == 1
    monkeypatch.setattr(jobs, "usable_cores", lambda: 64)
    monkeypatch.setattr(jobs, "usable_memory", lambda: 10_500_000_000)
    assert default_jobs(3.0) == 3
