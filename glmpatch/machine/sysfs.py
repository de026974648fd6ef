"""Reads the machine from `/sys` and `/proc`. Where they hide something, as in a container, it says what it assumed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from glmpatch.errors import EnvironmentLacksError
from glmpatch.machine import cgroups
from glmpatch.machine.memory_kinds import NodeFacts, assumed_distances, judge_nodes
from glmpatch.machine.topology import ISA_FLAGS, Core, Topology, parse_cpu_list

_ROOT = Path("/")


def read_machine(root: Path = _ROOT) -> Topology:
    """Read the machine that this process runs on.

    Args:
        root: Where `proc` and `sys` are.

    Raises:
        EnvironmentLacksError: Nothing tells which CPUs there are.
    """
    return _Reader(root).read()


class _Reader:
    """Reads one machine, and gathers the notes on what it could not read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes: list[str] = []
        self._processors = _processors(_read(root / "proc/cpuinfo") or "")

    def read(self) -> Topology:
        online = self._online()
        packages = {cpu: self._package(cpu) for cpu in online}
        cores = self._cores(online, packages)
        if -1 in packages.values():
            self._notes.append("The packages are not told: taken for one.")
        first = next(iter(self._processors.values()), {})
        model = " ".join(first.get("model name", "").split())
        facts = self._nodes(online)
        homes = {cpu: node.number for node in facts for cpu in node.cpus}
        nodes, judged = judge_nodes(facts, model, len(set(packages.values())))
        # ARM has no line of that name, and other instructions for bf16.
        flags = first.get("flags", "").split()
        numbers = tuple(node.number for node in facts)
        return Topology(
            source="this machine" if self._root == _ROOT else str(self._root),
            model=model,
            cores=tuple(
                sorted(
                    (Core(max(packages[cpus[0]], 0), homes[cpus[0]], cpus) for cpus in cores),
                    key=lambda core: (core.package, core.cpus),
                )
            ),
            nodes=nodes,
            isa=tuple(flag for flag in ISA_FLAGS if flag in flags) if flags else None,
            allowed_cpus=self._allowed(online, "Cpus_allowed_list", cgroups.allowed_cpus),
            allowed_nodes=self._allowed(numbers, "Mems_allowed_list", cgroups.allowed_nodes),
            cpu_quota=cgroups.cpu_quota(self._root),
            memory_limit=cgroups.memory_limit(self._root),
            notes=(*self._notes, *judged),
        )

    def _online(self) -> tuple[int, ...]:
        """The CPUs that are online."""
        folder = self._root / "sys/devices/system/cpu"
        if online := _list(folder / "online"):
            # LXC can tell as many CPUs as it grants the time of, from 0 on. Those that are ours are true.
            ours = self._affinity("Cpus_allowed_list") or ()
            return tuple(sorted({*online, *(cpu for cpu in ours if (folder / f"cpu{cpu}/topology").is_dir())}))
        self._notes.append("/sys/devices/system/cpu does not tell the CPUs: taken from /proc.")
        online = tuple(sorted(self._processors)) or self._affinity("Cpus_allowed_list") or ()
        if not online:
            raise EnvironmentLacksError(
                f"{self._root}: neither sys/devices/system/cpu nor proc/cpuinfo tells the CPUs",
                hint="describe the machine with a file or a preset: --topology",
            )
        return online

    def _package(self, cpu: int) -> int:
        """The number of the CPU's package; -1 if nothing tells, as on virtual machines and ARM."""
        text = _read(self._root / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id")
        if text is None:
            text = self._processors.get(cpu, {}).get("physical id")
        return int(text) if text and text.isdecimal() else -1

    def _cores(self, online: tuple[int, ...], packages: dict[int, int]) -> list[tuple[int, ...]]:
        """The CPUs of each core. Those that share one are told by their list: `core_id` is not unique."""
        siblings: dict[object, list[int]] = {}
        unknown = False
        for cpu in online:
            folder = self._root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            key: object = _list(folder / "core_cpus_list") or _list(folder / "thread_siblings_list")
            if not key:
                core = self._processors.get(cpu, {}).get("core id")
                unknown |= core is None
                key = ("cpu", cpu) if core is None else ("core", packages[cpu], core)
            siblings.setdefault(key, []).append(cpu)
        if unknown:
            self._notes.append("The cores are not told: each CPU is taken for one.")
        return [tuple(cpus) for cpus in siblings.values()]

    def _nodes(self, online: tuple[int, ...]) -> list[NodeFacts]:
        """What the kernel says of each NUMA node that is online, by number."""
        base = self._root / "sys/devices/system/node"
        found = {int(folder.name[4:]): folder for folder in base.glob("node[0-9]*")}
        wanted = _list(base / "online") or tuple(found)
        folders = {number: found[number] for number in sorted(found) if number in wanted}
        there = set(online)
        cpus = {number: tuple(cpu for cpu in _list(folders[number] / "cpulist") if cpu in there) for number in folders}
        homeless = there.difference(*cpus.values())
        if homeless and folders:
            first = min(folders)
            cpus[first] = tuple(sorted({*cpus[first], *homeless}))
            self._notes.append(f"The NUMA node of some CPUs is not told: taken for node {first}.")
        if not folders:
            self._notes.append("/sys/devices/system/node is not there: taken for one NUMA node.")
            return [NodeFacts(0, online, _memory(self._root / "proc/meminfo"), (10,))]
        texts = [_read(folder / "distance") or "" for folder in folders.values()]
        rows = [tuple(int(word) for word in re.findall(r"\d+", text)) for text in texts]
        if any(len(row) != len(rows) for row in rows):
            self._notes.append("The distances of the NUMA nodes are not told: guessed.")
            rows = list(assumed_distances([sum(1 << cpu for cpu in cpus[number]) for number in folders]))
        return [
            NodeFacts(
                number=number,
                cpus=cpus[number],
                memory=_memory(folder / "meminfo"),
                distances=row,
                cache=max((_number(file) for file in folder.glob("memory_side_cache/index*/size")), default=0),
                bandwidth=_number(folder / "access0/initiators/read_bandwidth"),
                offline_cpus=not cpus[number] and any(folder.glob("cpu[0-9]*")),
            )
            for (number, folder), row in zip(folders.items(), rows, strict=True)
        ]

    def _allowed(
        self, present: tuple[int, ...], name: str, grant: Callable[[Path], tuple[int, ...] | None]
    ) -> tuple[int, ...]:
        """Those of the numbers that this process may use: by its own mask, and by its control groups."""
        for granted in (self._affinity(name), grant(self._root)):
            # A list that has nothing in common with what there is tells of another machine: that outside of a sandbox.
            present = tuple(number for number in present if granted is None or number in granted) or present
        return present

    def _affinity(self, name: str) -> tuple[int, ...] | None:
        if self._root == _ROOT and name == "Cpus_allowed_list":
            return tuple(sorted(os.sched_getaffinity(0)))
        match = re.search(rf"^{name}:\s*(\S+)$", _read(self._root / "proc/self/status") or "", re.MULTILINE)
        return _numbers(match[1]) or None if match else None


def _processors(cpuinfo: str) -> dict[int, dict[str, str]]:
    """The entries of /proc/cpuinfo, by CPU."""
    processors = {}
    for entry in re.split(r"\n\s*\n", cpuinfo):
        pairs = (line.partition(":") for line in entry.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if fields.get("processor", "").isdecimal():
            processors[int(fields["processor"])] = fields
    return processors


def _memory(meminfo: Path) -> int:
    """The bytes that a `meminfo` file tells, that of the machine or of a node."""
    match = re.search(r"MemTotal:\s+(\d+) kB", _read(meminfo) or "")
    return int(match[1]) * 1024 if match else 0


def _list(file: Path) -> tuple[int, ...]:
    return _numbers(_read(file) or "")


def _numbers(text: str) -> tuple[int, ...]:
    with suppress(ValueError):
        return parse_cpu_list(text)
    return ()


def _number(file: Path) -> int:
    text = _read(file) or ""
    return int(text) if text.isdecimal() else 0


def _read(file: Path) -> str | None:
    """The text of a file; None if it is not there or may not be read."""
    with suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").strip()
    return None
