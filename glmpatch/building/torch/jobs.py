"""How many compilers this machine can run at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
    return min([_available(root), *_limits(root)])


def _available(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _limits(root: Path) -> Iterator[int]:
    """The limits of the control groups that this process is in, of both versions, and of those above them."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in {"", "memory"}:
                base = root / "sys/fs/cgroup" / controllers
                yield from _limits_of(base, group.strip("/"))


def _limits_of(base: Path, group: str) -> Iterator[int]:
    folder = base / group
    for current in (folder, *folder.parents):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            # Not there, or the word "max".
            with suppress(OSError, ValueError):
                most = int((current / limit).read_text(encoding="ascii"))
                used = int((current / usage).read_text(encoding="ascii"))
                yield max(0, most - used + _cached(current))
        if current == base:
            return


def _cached(group: Path) -> int:
    """The bytes of files that are kept in memory as long as nobody else needs it, and count as used."""
    counts = dict(re.findall(r"^(\w+) (\d+)$", (group / "memory.stat").read_text(encoding="ascii"), re.MULTILINE))
    # In version 1 those with the groups below have a name of their own.
    before = "total_" if "total_active_file" in counts else ""
    return sum(int(counts.get(f"{before}{kind}_file", 0)) for kind in ("active", "inactive"))
