"""Writes `/sys` and `/proc` of a machine that is not there, as its kernel would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glmpatch.machine.topology import Core, Topology, format_cpu_list

CPU, NODE = "sys/devices/system/cpu", "sys/devices/system/node"


def write_tree(root: Path, topology: Topology) -> Path:
    """Write the machine below `root`. Tests change files of it to make it less regular."""
    for path, text in files(topology):
        write(root, path, text)
    return root


def write(root: Path, path: str, text: str) -> None:
    """Write one file below `root`, with a line end."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n", encoding="utf-8")


def files(topology: Topology) -> Iterator[tuple[str, str]]:
    """Each file and its text."""
    online = sorted(cpu for core in topology.cores for cpu in core.cpus)
    yield f"{CPU}/online", format_cpu_list(online)
    yield f"{NODE}/online", format_cpu_list(node.number for node in topology.nodes)
    for index, core in enumerate(topology.cores):
        yield from _core_files(index, core)
    for node in topology.nodes:
        folder = f"{NODE}/node{node.number}"
        yield f"{folder}/cpulist", format_cpu_list(node.cpus)
        yield f"{folder}/meminfo", f"Node {node.number} MemTotal:{node.memory // 1024:>16} kB"
        yield f"{folder}/distance", " ".join(map(str, node.distances))
        if node.cache:
            yield f"{folder}/memory_side_cache/index1/size", str(node.cache)
    yield "proc/cpuinfo", "\n\n".join(_cpuinfo(topology, online))
    total = sum(node.memory for node in topology.nodes) // 1024
    yield "proc/meminfo", f"MemTotal:{total:>16} kB\nMemFree:{total:>16} kB\nMemAvailable:{total:>16} kB"
    cpus, nodes = format_cpu_list(topology.allowed_cpus), format_cpu_list(topology.allowed_nodes)
    yield "proc/self/status", f"Name:\tpython\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}"
    yield "proc/self/cgroup", "0::/job"
    if topology.cpu_quota:
        yield "sys/fs/cgroup/job/cpu.max", f"{round(topology.cpu_quota * 100_000)} 100000"
    if topology.memory_limit:
        yield "sys/fs/cgroup/job/memory.max", str(topology.memory_limit)
        yield "sys/fs/cgroup/job/memory.current", "0"


def _core_files(index: int, core: Core) -> Iterator[tuple[str, str]]:
    for cpu in core.cpus:
        folder = f"{CPU}/cpu{cpu}/topology"
        yield f"{folder}/physical_package_id", str(core.package)
        # Not unique on a real machine, either.
        yield f"{folder}/core_id", str(index % 4)
        yield f"{folder}/core_cpus_list", format_cpu_list(core.cpus)


def _cpuinfo(topology: Topology, online: list[int]) -> Iterator[str]:
    flags = " ".join(("fpu", "sse2", *(topology.isa or ()), "avx512cd"))
    cores = {cpu: (core.package, index) for index, core in enumerate(topology.cores) for cpu in core.cpus}
    for cpu in online:
        package, core = cores[cpu]
        yield (
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {topology.model}\n"
            f"physical id\t: {package}\ncore id\t\t: {core}\nflags\t\t: {flags}\npower management:"
        )
