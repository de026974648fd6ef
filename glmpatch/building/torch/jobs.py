"""How many compilers this machine can run at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from glmpatch.machine.cgroups import memory_left

_GB = 1_000_000_000


def default_jobs(job_gb: float) -> int:
    """As many as memory allows, one on each core that we may use at the most, and one at the least."""
    return max(1, min(usable_cores(), int(usable_memory() / (job_gb * _GB))))


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def usable_memory(root: Path = Path("/")) -> int:
    """The bytes of memory that are to be had: those of the machine, or of the control group where that has fewer.

    Args:
        root: Where `proc` and `sys` are.
    """
    left = memory_left(root)
    return _available(root) if left is None else min(_available(root), left)


def _available(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
