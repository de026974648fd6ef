"""What the control groups of this process grant, those of version 1 and of version 2, and all groups above them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glmpatch.machine.topology import parse_cpu_list

# Version 1 says a number of about this size in the place of "none", version 2 the word "max".
_NO_LIMIT = 1 << 60


def cpu_quota(root: Path) -> float | None:
    """How many CPUs' time the groups grant; None without a limit.

    Args:
        root: Where `proc` and `sys` are.
    """
    quotas = [_quota(folder) for folder in _folders(root, "cpu")]
    return min((quota for quota in quotas if quota), default=None)


def memory_limit(root: Path) -> int | None:
    """The bytes of memory that the groups grant; None without a limit."""
    return min((limit for _, limit, _ in _limits(root)), default=None)


def memory_left(root: Path) -> int | None:
    """The bytes of that limit that are not in use; None without a limit."""
    left = (max(0, limit - used + _cached(folder)) for folder, limit, used in _limits(root))
    return min(left, default=None)


def allowed_cpus(root: Path) -> tuple[int, ...] | None:
    """The CPUs that the groups grant; None if they do not say."""
    return _allowed(root, "cpus")


def allowed_nodes(root: Path) -> tuple[int, ...] | None:
    """The numbers of the NUMA nodes whose memory the groups grant; None if they do not say."""
    return _allowed(root, "mems")


def _allowed(root: Path, what: str) -> tuple[int, ...] | None:
    for folder in _folders(root, "cpuset"):
        # What is in force comes first: what was asked for can be more, or empty.
        for name in (f"cpuset.{what}.effective", f"cpuset.effective_{what}", f"cpuset.{what}"):
            with suppress(OSError, ValueError):
                if numbers := parse_cpu_list((folder / name).read_text(encoding="ascii")):
                    return numbers
    return None


def _quota(folder: Path) -> float | None:
    # Not there, the word "max", or -1.
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    return None


def _limits(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Each group that limits memory: its folder, its limit, and what is in use."""
    for folder in _folders(root, "memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            # Not there, or the word "max".
            with suppress(OSError, ValueError):
                most = int((folder / limit).read_text(encoding="ascii"))
                used = int((folder / usage).read_text(encoding="ascii"))
                if most < _NO_LIMIT:
                    yield folder, most, used


def _cached(folder: Path) -> int:
    """The bytes of files that are kept in memory as long as nobody else needs it, and count as used."""
    with suppress(OSError):
        text = (folder / "memory.stat").read_text(encoding="ascii")
        counts = dict(re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE))
        # In version 1 those with the groups below have a name of their own.
        before = "total_" if "total_active_file" in counts else ""
        return sum(int(counts.get(f"{before}{kind}_file", 0)) for kind in ("active", "inactive"))
    return 0


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, for that controller, each followed by those above it.

    In a container the path is often that outside of it, and is not there: the group is then the one at the top.
    """
    mount = root / "sys/fs/cgroup"
    with suppress(OSError):
        text = (root / "proc/self/cgroup").read_text(encoding="utf-8")
        for controllers, group in re.findall(r"^\d+:([^:]*):(.*)$", text, re.MULTILINE):
            # Version 2 has all controllers in one place, which is another one if version 1 is there, too.
            if not controllers:
                bases = [mount / "unified", mount]
            elif controller in controllers.split(","):
                # Several controllers in one place have a link of each one's name, as a rule.
                bases = [mount / controller, mount / controllers]
            else:
                continue
            base = next((folder for folder in bases if folder.is_dir()), bases[-1])
            folder = base / group.strip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(base))
