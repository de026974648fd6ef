"""What this session may use: shared memory, limits of the shell and of the control group, memory policies, CPUs."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glmpatch.doctor.kernel import in_container, read
from glmpatch.doctor.row import Check, Row
from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology, format_cpu_list
from glmpatch.wording import count, size

_SHM = Check("shm", "Shared memory")
_ULIMITS = Check("ulimits", "Limits")
_POLICY = Check("memory-policy", "Memory policies")
_CPUS = Check("cpus", "CPUs to use")
# What Intel MPI 2021.18 starts with, and what a rank of MPICH 5 takes. With less, ranks die of a bus error.
_SHM_LEAST, _SHM_OF_RANK = 25_000_000, 6_000_000
_FILES = 1024
# What a rank starts besides its threads of OpenMP: those of oneDNN, MPI, the backend and the data loader.
_OTHER_THREADS = 32
# set_mempolicy, by machine.
_SYSCALL = {"x86_64": 238, "aarch64": 237}
_UNLIMITED = resource.RLIM_INFINITY
_LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
    "as": resource.RLIMIT_AS,
}
# What ulimit calls those that are raised.
_LETTERS = {"nofile": "n", "nproc": "u", "memlock": "l", "as": "v"}


@dataclass(frozen=True, slots=True)
class Session:
    """What no file tells.

    Attributes:
        shm: The bytes that are free in `/dev/shm`; None if there is none.
        limits: The soft limits, as prlimit names them; -1 for none.
        hard: What they can be raised to without more rights.
        policy_error: Why memory policies cannot be set; "" if they can, None if that is unknown.
        user: The number of the user.
        numactl: Whether there is the program numactl.
    """

    shm: int | None
    limits: Mapping[str, int]
    hard: Mapping[str, int]
    policy_error: str | None
    user: int
    numactl: bool


def ask_session() -> Session:
    """Ask the kernel."""
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - where MPIs put it
        free = shm.f_bavail * shm.f_frsize
    except OSError:
        free = None
    soft, hard = ({name: resource.getrlimit(number)[at] for name, number in _LIMITS.items()} for at in (0, 1))
    return Session(
        free,
        soft,
        hard,
        _try_memory_policy(),
        os.geteuid(),
        shutil.which("numactl") is not None,
    )


def _try_memory_policy() -> str | None:
    """Set the default policy, in a thread that ends: a policy is that of a thread."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return None
    answers: list[int] = []

    def set_default() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        answers.append(ctypes.get_errno() if libc.syscall(number, 0, None, ctypes.c_ulong(0)) else 0)

    thread = threading.Thread(target=set_default)
    thread.start()
    thread.join()
    return errno.errorcode.get(answers[0], "error") if answers[0] else ""


def shared_memory(root: Path, session: Session, ranks: int) -> Row:
    """Whether the ranks of this host have room for their messages."""
    if session.shm is None:
        return _SHM.fails("there is no /dev/shm", "sudo mount -t tmpfs -o mode=1777 tmpfs /dev/shm")
    needed = max(_SHM_LEAST, ranks * _SHM_OF_RANK)
    evidence = f"{size(session.shm)} free in /dev/shm, {count(ranks, 'rank')} can need {size(needed)}"
    if session.shm >= needed:
        return _SHM.passes(evidence)
    mend = "docker run --shm-size=1g ..." if in_container(root) else "sudo mount -o remount,size=1g /dev/shm"
    return _SHM.fails(f"{evidence}: MPI dies of a bus error", mend)


def ulimits(root: Path, session: Session, placement: Placement, rank_bytes: int) -> Row:
    """Whether the limits of the shell and of the control group leave enough to the ranks.

    Args:
        root: Where `proc` and `sys` are.
        session: What the kernel told.
        placement: The ranks and their threads.
        rank_bytes: What a rank needs of memory, in bytes.
    """
    threads = len(placement.seats) * (placement.threads + _OTHER_THREADS)
    evidence = ", ".join(f"{name} {_told(name, limit)}" for name, limit in session.limits.items())
    if _below(session, "as", rank_bytes):
        return _ULIMITS.fails(
            f"{evidence}: a rank needs {size(rank_bytes)} of address space", _raise(root, session, "as", _UNLIMITED)
        )
    # Of other programs of the user's nothing is known; it does not bind root.
    if session.user != 0 and _below(session, "nproc", threads):
        return _ULIMITS.fails(
            f"{evidence}: the ranks start {threads} threads", _raise(root, session, "nproc", 4 * threads)
        )
    pids = read(root, "sys/fs/cgroup/pids.max") or read(root, "sys/fs/cgroup/pids/pids.max") or "max"
    if pids.isdecimal() and int(pids) < threads:
        return _ULIMITS.fails(
            f"{pids} in /sys/fs/cgroup/pids.max: the ranks start {threads} threads", "docker run --pids-limit=-1 ..."
        )
    if _below(session, "nofile", _FILES):
        return _ULIMITS.warns(f"{evidence}: few files can be open", _raise(root, session, "nofile", _FILES))
    fabric = root / "sys/class/infiniband"
    if session.limits["memlock"] != _UNLIMITED and fabric.is_dir() and any(fabric.iterdir()):
        return _ULIMITS.warns(
            f"{evidence}: the adapter in /sys/class/infiniband needs memory that stays in place",
            _raise(root, session, "memlock", _UNLIMITED),
        )
    return _ULIMITS.passes(evidence)


def _told(name: str, limit: int) -> str:
    if limit == _UNLIMITED:
        return "unlimited"
    return str(limit) if name in {"nofile", "nproc"} else size(limit)


def _below(session: Session, name: str, needed: int) -> bool:
    return session.limits[name] != _UNLIMITED and session.limits[name] < needed


def _raise(root: Path, session: Session, name: str, limit: int) -> str:
    """The command that raises a limit of the shell, and the hard one only if it must."""
    value, hard = "unlimited" if limit == _UNLIMITED else str(limit), session.hard[name]
    if hard == _UNLIMITED or (limit != _UNLIMITED and hard >= limit):
        return f"ulimit -S{_LETTERS[name]} {value}"
    if in_container(root):
        return f"docker run --ulimit {name}={limit} ..."
    return f"sudo prlimit --pid $$ --{name}={value}"


def memory_policy(session: Session, topology: Topology) -> Row:
    """Whether ranks can say which memory they prefer. By default, theirs is on the node where they run."""
    if session.policy_error is None:
        return _POLICY.passes(f"unknown: not tried on {platform.machine()}")
    if len(topology.nodes) == 1:
        return _POLICY.passes("not needed: one NUMA node")
    if session.policy_error:
        evidence = f"set_mempolicy is refused: {session.policy_error}"
        if topology.hbm_mode != "flat":
            return _POLICY.passes(f"{evidence}; not needed without HBM in flat mode")
        return _POLICY.warns(f"{evidence}: the ranks do not get at the HBM", "docker run --cap-add=SYS_NICE ...")
    if topology.hbm_mode == "flat" and not session.numactl:
        return _POLICY.warns(
            "numactl is not installed: the ranks do not get at the HBM", "sudo apt-get install numactl"
        )
    return _POLICY.passes("set_mempolicy works")


def cpus(topology: Topology) -> Row:
    """Which CPUs are ours, by the cpuset and the quota."""
    total = sum(len(core.cpus) for core in topology.cores)
    usable = len(topology.usable_cores)
    evidence = f"{format_cpu_list(topology.allowed_cpus)}: {len(topology.allowed_cpus)} of {total} CPUs"
    evidence += f", on {usable} of {len(topology.cores)} cores"
    if topology.cpu_quota is not None:
        evidence += f"; the control group grants the time of {topology.cpu_quota:g} CPUs"
    return _CPUS.passes(evidence)
