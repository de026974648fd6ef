"""The launch script in a tree of upstream. It is of the machine, not of the patches: it is never committed."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from glmpatch.checkout import Checkout, open_checkout
from glmpatch.launching.plan import LaunchPlan, choose_mpi
from glmpatch.launching.script import holds_ours, render_script
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.patching.tree import write_own_file, writing

SCRIPT = "ptuning/launch_cpu.sh"


class ScriptState(Enum):
    """What became of the launch script. One that apply did not write, or that was changed since, is kept as it is."""

    WRITTEN = "written"
    CURRENT = "current"
    KEPT = "kept"


def plan_for_here() -> LaunchPlan:
    """The launch script for this machine. If it has no MPI yet, mpirun is looked up at launch.

    Raises:
        EnvironmentLacksError: Nothing tells which CPUs it has.
        UsageError: The MPI cannot be told to put the ranks there.
    """
    topology = read_topology(None)
    return LaunchPlan(choose_mpi(None, None, here=False), topology, place(topology), writer="apply")


def write_into_tree(root: Path, plan: LaunchPlan, *, dry_run: bool = False) -> ScriptState:
    """Write the launch script of a tree, but not over one of the user's; git is told not to show it.

    Args:
        root: The tree.
        plan: What the script says.
        dry_run: Whether to tell only what would become of it.

    Raises:
        EnvironmentLacksError: It cannot be written.
    """
    file, script = root / SCRIPT, render_script(plan)
    if os.path.lexists(file):
        if not _is_of_apply(file):
            return ScriptState.KEPT
        if file.read_bytes() == script:
            return ScriptState.CURRENT
    if not dry_run:
        if checkout := open_checkout(root):
            _exclude(checkout)
        write_own_file(file, script, mode=0o755)
    return ScriptState.WRITTEN


def remove_from_tree(root: Path) -> bool:
    """Remove the launch script of a tree, if apply wrote it and nobody has changed it; whether it did.

    Raises:
        EnvironmentLacksError: It cannot be removed.
    """
    file = root / SCRIPT
    if not _is_of_apply(file):
        return False
    with writing(file):
        file.unlink()
    return True


def _is_of_apply(file: Path) -> bool:
    return holds_ours(file) and b"`glmpatch apply`" in file.read_bytes()


def _exclude(checkout: Checkout) -> None:
    """Keep git from showing the script. A revert leaves the line there: another worktree may need it."""
    file, line = checkout.exclude_file, f"/{SCRIPT}".encode()
    with writing(file):
        old = file.read_bytes() if file.exists() else b""
        if line not in old.splitlines():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(old + (b"\n" if old and not old.endswith(b"\n") else b"") + line + b"\n")
