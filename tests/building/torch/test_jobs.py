from __future__ import annotations

import os
from pathlib import Path

import pytest

from glmpatch.building.torch import jobs
from glmpatch.building.torch.jobs import default_jobs, usable_cores, usable_memory
from tests.git_support import make_folder

GB = 1 << 30


def test_without_control_groups(tmp_path: Path) -> None:
    make_folder(tmp_path / "b", {"proc/meminfo": b"MemFree:   1 kB\nMemAvailable:   1024 kB\n"})
    assert usable_memory(tmp_path / "b") == 1 << 20
    make_folder(tmp_path / "c", {"proc/meminfo": b"MemTotal:   1024 kB\n"})
    assert usable_memory(tmp_path / "c") == 0


@pytest.mark.parametrize(("limit", "expected"), [(8 * GB, 5 * GB), (99 * GB, 64 * GB), ("max", 64 * GB)])
def test_within_a_control_group(tmp_path: Path, limit: int | str, expected: int) -> None:
    texts = {
        "proc/meminfo": f"MemAvailable:   {64 * GB // 1024} kB",
        "proc/self/cgroup": "0::/job",
        "sys/fs/cgroup/job/memory.max": f"{limit}",
        "sys/fs/cgroup/job/memory.current": f"{3 * GB}",
    }
    make_folder(tmp_path, {path: f"{text}\n".encode() for path, text in texts.items()})
    assert usable_memory(tmp_path) == expected


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    assert 0 < usable_memory() < 1 << 50
    assert default_jobs(1e-6) == usable_cores()
    assert default_jobs(1e6) == 1
    monkeypatch.setattr(jobs, "usable_cores", lambda: 64)
    monkeypatch.setattr(jobs, "usable_memory", lambda: 10_500_000_000)
    assert default_jobs(3.0) == 3
