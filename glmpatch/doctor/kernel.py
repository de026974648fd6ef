"""The settings of the kernel that cost speed."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

from glmpatch.doctor.row import Check, Row
from glmpatch.machine.topology import Topology
from glmpatch.wording import count, size

_THP = Check("thp", "Transparent huge pages")
_BALANCING = Check("numa-balancing", "NUMA balancing")
_GOVERNOR = Check("governor", "CPU frequency governor")
_SWAP = Check("swap", "Swap")
SHOW_MEMORY = "ps -eo pid,user,rss,args --sort=-rss | head"


def read(root: Path, path: str) -> str | None:
    """The text of a file below `root`; None if it is not there or may not be read."""
    with suppress(OSError):
        return (root / path).read_text(encoding="utf-8", errors="replace").strip()
    return None


def in_container(root: Path) -> bool:
    """Whether Docker, Podman or Kubernetes started this."""
    return any((root / path).exists() for path in (".dockerenv", "run/.containerenv")) or (
        "KUBERNETES_SERVICE_HOST" in os.environ
    )


def _on_host(root: Path, command: str) -> str:
    """A command that changes the kernel, which no container may do."""
    return f"{command}  # on the host" if in_container(root) else command


def huge_pages(root: Path) -> Row:
    """Whether large tensors can have large pages: every step reads all weights, and small pages cost look-ups."""
    path = "sys/kernel/mm/transparent_hugepage/enabled"
    text = read(root, path)
    if text is None:
        return _THP.passes(f"unknown: no /{path}")
    evidence = f"{text} in /{path}"
    if "[never]" in text:
        mend = _on_host(root, f"echo always | sudo tee /{path}")
        return _THP.warns(f"{evidence}: all memory is in pages of 4 KB", mend)
    if "[madvise]" in text and os.environ.get("THP_MEM_ALLOC_ENABLE") != "1":
        return _THP.passes(f"{evidence}: PyTorch asks for them if THP_MEM_ALLOC_ENABLE is 1")
    return _THP.passes(evidence)


def numa_balancing(root: Path, topology: Topology) -> Row:
    """Whether the kernel moves pages about, which are where they belong already: each rank stays on its cluster."""
    path = "proc/sys/kernel/numa_balancing"
    text = read(root, path)
    if text is None:
        return _BALANCING.passes(f"not in this kernel: no /{path}")
    evidence = f"{text} in /{path}"
    if text == "0":
        return _BALANCING.passes(evidence)
    if len(topology.nodes) == 1:
        return _BALANCING.passes(f"{evidence}, and nothing to balance: one NUMA node")
    return _BALANCING.warns(
        f"{evidence}: the kernel takes pages from the ranks to see who uses them",
        _on_host(root, "sudo sysctl kernel.numa_balancing=0"),
    )


def governor(root: Path) -> Row:
    """Whether the CPUs run as fast as they can."""
    path = "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    found = Counter(read(root, str(file.relative_to(root))) or "unknown" for file in root.glob(path))
    if not found:
        return _GOVERNOR.passes(f"not shown here, as on virtual machines: no /{path}")
    evidence = ", ".join(f"{name} on {count(number, 'CPU')}" for name, number in found.most_common()) + f" in /{path}"
    if set(found) <= {"performance", "unknown"}:
        return _GOVERNOR.passes(evidence)
    return _GOVERNOR.warns(evidence, _on_host(root, f"echo performance | sudo tee /{path}"))


def swap(root: Path) -> Row:
    """Whether memory has been swapped out, and would not have room if it was asked for again."""
    sizes = memory_info(root)
    total, free = sizes.get("SwapTotal"), sizes.get("SwapFree")
    if total is None or free is None:
        return _SWAP.passes("unknown: /proc/meminfo does not tell")
    if not total:
        return _SWAP.passes("none, SwapTotal is 0 in /proc/meminfo")
    used = total - free
    evidence = f"{size(used)} of {size(total)} in use, SwapFree in /proc/meminfo"
    if used <= sizes.get("MemAvailable", 0):
        return _SWAP.passes(evidence)
    return _SWAP.warns(
        f"{evidence}: a rank that is swapped out keeps all others waiting. Stop what takes it, which the command shows",
        SHOW_MEMORY,
    )


def memory_info(root: Path) -> dict[str, int]:
    """The sizes in `/proc/meminfo`, in bytes."""
    pairs = re.findall(r"^(\w+):\s+(\d+) kB$", read(root, "proc/meminfo") or "", re.MULTILINE)
    return {name: int(number) * 1024 for name, number in pairs}
