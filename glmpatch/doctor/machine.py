"""What the machine is, and whether ChatGLM-6B fits into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from glmpatch.doctor.kernel import SHOW_MEMORY, memory_info
from glmpatch.doctor.row import Check, Row
from glmpatch.doctor.tree import PatchedTree, apply_command, write_launch_script
from glmpatch.machine import cgroups
from glmpatch.machine.memory import MARGIN, MemoryPlan, plan_memory
from glmpatch.machine.placement import Placement, place
from glmpatch.machine.topology import Topology
from glmpatch.patching.model import Dtype
from glmpatch.wording import count, size

_NUMA = Check("numa", "NUMA")
_HBM = Check("hbm", "HBM")
_MEMORY = Check("memory", "Memory")
# Below that a better mode of HBM is not worth a restart.
_WORTH_IT = 0.05


def numa(topology: Topology, placement: Placement) -> Row:
    """How the machine is divided, and the ranks that fit to that."""
    packages, clusters = len(topology.packages), len(topology.clusters)
    snc = f"sub-NUMA clustering, {topology.snc} clusters a package" if topology.snc > 1 else "no sub-NUMA clustering"
    seats = f"{count(len(placement.seats), 'rank')} of {count(placement.threads, 'thread')}"
    sizes = (
        f"{count(packages, 'package')}, {count(clusters, 'NUMA node')} with CPUs, {count(len(topology.cores), 'core')}"
    )
    notes = f". {' '.join(topology.notes)}" if topology.notes else ""
    return _NUMA.passes(f"{sizes}; {snc}: {seats}{notes}")


def hbm(root: Path, topology: Topology, plan: MemoryPlan) -> Row:
    """Whether the memory on the package is there, and used in the mode that serves best."""
    if not plan.modes:
        # In flat mode firmware sets it apart, and kernels that know no better leave it so.
        devices = sorted(file.name for file in root.glob("sys/bus/dax/devices/dax*"))
        if not (re.search(r"\bXeon\b.*\bMax\b", topology.model) and devices):
            return _HBM.passes("none on this machine")
        return _HBM.warns(
            f"{topology.model} has HBM, and no NUMA node is it: set apart as /sys/bus/dax/devices/{devices[0]}",
            f"sudo daxctl reconfigure-device --mode=system-ram {' '.join(devices)}",
        )
    best = plan.modes[0]
    now = next(outlook for outlook in plan.modes if outlook.mode == plan.mode)
    if best.mode == now.mode or (now.fits and best.share - now.share < _WORTH_IT):
        return _HBM.passes(f"mode {now.mode}: {now.why}")
    return _HBM.warns(
        f"mode {now.mode}: {now.why}; in mode {best.mode}, {best.why}. The firmware sets the mode",
        "sudo systemctl reboot --firmware-setup",
    )


def memory(
    root: Path, topology: Topology, plans: Mapping[Dtype, MemoryPlan], dtype: Dtype, tree: PatchedTree | None
) -> Row:
    """Whether the ranks have room: on this machine at all, and just now.

    Args:
        root: Where `proc` and `sys` are.
        topology: The machine.
        plans: What the ranks need with each dtype.
        dtype: That which they will train with.
        tree: The tree of upstream; None without one.
    """
    plan = plans[dtype]
    evidence = f"{dtype}: {'; '.join(plan.reasons)}"
    if plan.verdict == "tight":
        return _MEMORY.warns(f"tight: {evidence}", _make_room(topology, plans, dtype, tree))
    if plan.verdict == "too small":
        return _MEMORY.fails(f"too small: {evidence}", _make_room(topology, plans, dtype, tree))
    rooms = {
        "MemAvailable in /proc/meminfo": memory_info(root).get("MemAvailable"),
        "the control group": cgroups.memory_left(root),
    }
    told = [(room, source) for source, room in rooms.items() if room is not None]
    if not told:
        return _MEMORY.passes(f"{evidence}; how much is free is unknown")
    room, source = min(told)
    evidence += f"; {size(room)} free now by {source}"
    if room < plan.ranks * plan.need.peak_bytes:
        return _MEMORY.warns(f"{evidence}. Stop what takes it, which the command shows", SHOW_MEMORY)
    return _MEMORY.passes(evidence)


def _make_room(topology: Topology, plans: Mapping[Dtype, MemoryPlan], dtype: Dtype, tree: PatchedTree | None) -> str:
    """The most ranks that fit; else the smaller dtype, if that fits; else what a machine must have."""
    plan, script = plans[dtype], tree.script if tree else Path("launch_cpu.sh")
    for ranks in range(plan.ranks - 1, 0, -1):
        if plan_memory(topology, place(topology, ranks=ranks), plan.need).verdict == "fits":
            return write_launch_script(script, ranks)
    if plans["bf16"].verdict == "fits":
        return apply_command(tree, "bf16")
    needed = size(plan.need.peak_bytes * (1 + MARGIN))
    return f"glmpatch demo  # this trains a small model; ChatGLM-6B takes a machine with {needed} to spare for a rank"
