"""Renders the launch script, and knows its own work again."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import Any, get_args

from glmpatch import __version__
from glmpatch.assets import shell_template
from glmpatch.errors import TreeError
from glmpatch.launching.plan import LaunchPlan, Mpi
from glmpatch.machine.need import CHATGLM_6B, NeedDtype, Workload, rank_need
from glmpatch.machine.topology import format_cpu_list
from glmpatch.mpi.pinning import srun_binding
from glmpatch.patching.tree import write_own_file

_TEMPLATE = "launch.sh.j2"
# The second line of every script has a sum of all others.
_MARK = re.compile(rb"(#![^\n]*\n)# glmpatch-launch: sha256 ([0-9a-f]{64})\n")
# Of an MPI that is not known yet.
_ASSUMED_VERSION = "5.0"
# Stand for what is known when the script runs.
_BASE = "\0base"
_ROOT = "/\0root"


def render_script(plan: LaunchPlan) -> bytes:
    """The launch script of a plan: a program for bash 4 or later.

    Raises:
        UsageError: The MPI cannot be told to put the ranks there.
    """
    text = shell_template(_TEMPLATE).render(
        version=__version__,
        writer=plan.writer,
        slurm=plan.slurm,
        several=plan.slurm or plan.hostfile is not None,
        nodes="" if plan.nodes is None else plan.nodes,
        hostfile=plan.hostfile and shlex.quote(str(plan.hostfile)),
        python_folder=shlex.quote(str(plan.python_folder)),
        rank_mb={dtype: _rank_mb(dtype) for dtype in get_args(NeedDtype)},
        **_machine(plan),
        **_mpi(plan),
    )
    shebang, newline, rest = os.fsencode(text).partition(b"\n")
    return shebang + newline + _mark(shebang + newline, rest) + rest


def is_ours(data: bytes) -> bool:
    """Whether this is a launch script, with nothing changed by hand."""
    found = _MARK.match(data)
    return found is not None and data.startswith(_mark(found[1], data[found.end() :]), found.end(1))


def write_script(file: Path, data: bytes, *, force: bool = False) -> None:
    """Write a launch script, in the place of an older one that nobody has changed.

    Args:
        file: Where to.
        data: What `render_script` gave.
        force: Whether to replace whatever file is there; but no link or device, such as `/dev/stdout`.

    Raises:
        TreeError: There is something else, or somebody has changed it.
        EnvironmentLacksError: It cannot be written.
    """
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise TreeError(f"{file} is not a plain file", hint="name another; without -o it goes to standard output")
    if file.exists() and not force and not holds_ours(file):
        raise TreeError(
            f"{file} is there, and not as glmpatch wrote it", hint="name another file, or use --force to replace it"
        )
    write_own_file(file, data, mode=0o755)


def holds_ours(file: Path) -> bool:
    """Whether there is a launch script, with nothing changed by hand."""
    return file.is_file() and not file.is_symlink() and is_ours(file.read_bytes())


def _mark(shebang: bytes, rest: bytes) -> bytes:
    return b"# glmpatch-launch: sha256 %s\n" % hashlib.sha256(shebang + rest).hexdigest().encode()


def _rank_mb(dtype: NeedDtype) -> int:
    """What a rank of ChatGLM-6B needs at its worst moment, in MB."""
    return -(-rank_need(CHATGLM_6B, Workload(dtype)).peak_bytes // 10**6)


def _machine(plan: LaunchPlan) -> dict[str, Any]:
    """What the script says of the machine, and where the ranks go on it."""
    seats = plan.placement.seats
    # The kernel takes a rank's own node first by itself.
    prefers = any(seat.memory_node not in {None, *seat.clusters} for seat in seats)
    return {
        "machine": shlex.quote(plan.topology.source),
        "ranks": len(seats),
        "threads": plan.placement.threads,
        "cpus": [format_cpu_list(seat.cpus) for seat in seats],
        "cores": [format_cpu_list(cpu for core in seat.cores for cpu in core.cpus) for seat in seats],
        "memory_nodes": ["''" if seat.memory_node is None else seat.memory_node for seat in seats] if prefers else [],
        "numa_nodes": [f"{node.number}:{format_cpu_list(node.cpus)}" for node in plan.topology.clusters],
    }


def _mpi(plan: LaunchPlan) -> dict[str, Any]:
    """What the script says of the MPI."""
    flavour, installation = plan.mpi.flavour, plan.mpi.installation
    version = installation.version if installation else _ASSUMED_VERSION
    pinning = flavour.pinning(plan.topology, plan.placement, version)
    remote_shell = flavour.remote_shell(_ROOT, version)
    # Intel's mpirun is a script that does not hand a signal on.
    launchers = ("mpiexec.hydra",) if flavour.id == "intel" else (f"mpirun{flavour.suffix}", "mpirun")
    return {
        "mpi": flavour.title,
        "flavour": flavour.id,
        "mpi_root": shlex.quote(str(installation.root)) if installation else "",
        # Of Open MPI the options differ.
        "major": version.partition(".")[0] if installation or flavour.id == "openmpi" else "",
        "mpi_environment": _mpi_environment(plan.mpi),
        "launchers": list(dict.fromkeys(launchers)),
        "launcher_pattern": shlex.quote(flavour.launcher.pattern),
        "pinning": pinning.shell_words('"$RANKFILE"'),
        "pinning_environment": {name: shlex.quote(value) for name, value in pinning.environment.items()},
        "pinning_without": pinning.without,
        "slots": [shlex.quote(slot) for slot in pinning.slots],
        "pmi": flavour.pmi,
        # What starts the ranks of Intel MPI and of MPICH.
        "hydra": flavour.pmi == "pmi2",
        "srun_binding": srun_binding(plan.placement),
        "per_host_flag": flavour.per_host_flag,
        "remote_shell": ['"$REMOTE_SHELL"' if word == _ROOT else word for word in remote_shell],
        "rank_variable": flavour.rank_variable,
        "size_variable": flavour.size_variable,
        "local_rank_variable": flavour.local_rank_variable,
    }


def _mpi_environment(mpi: Mpi) -> dict[str, str]:
    """Assignments of what the MPI needs: its root is a variable, and lists go before what the environment has."""
    root = mpi.installation.root if mpi.installation else Path(_ROOT)
    needed = mpi.flavour.environment(root, dict.fromkeys(("PATH", "LD_LIBRARY_PATH"), _BASE))
    return {
        name: _assigned(name, value, str(root))
        for name, value in needed.items()
        # These it has from its user, who may be another one.
        if value != _BASE and not name.startswith("OMPI_ALLOW")
    }


def _assigned(name: str, value: str, root: str) -> str:
    own = value.removesuffix(f"{os.pathsep}{_BASE}")
    words = "".join(f'"$MPI_ROOT"{shlex.quote(part) if part else ""}' for part in own.split(root)[1:])
    return words + (f'"${{{name}:+:${name}}}"' if own != value else "")
