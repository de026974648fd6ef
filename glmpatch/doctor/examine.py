"""Looks at everything, at once where that takes time, and judges it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

from glmpatch.building.record import installed_backend
from glmpatch.doctor import hosts, kernel, limits, machine, mpi_rows, packages, torch_rows
from glmpatch.doctor.row import Row
from glmpatch.doctor.torch_report import ask_torch
from glmpatch.doctor.tree import holds_upstream, launch_script, patched, read_tree
from glmpatch.machine.memory import plan_memory
from glmpatch.machine.need import CHATGLM_6B, ModelShape, Workload, rank_need
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.patching.model import Dtype


def examine(tree: Path | None = None, *, shape: ModelShape = CHATGLM_6B, root: Path = Path("/")) -> tuple[Row, ...]:
    """Look at this machine, this environment and a tree of upstream. Changes nothing.

    Args:
        tree: The tree; None for none.
        shape: The model that is to be trained.
        root: Where `proc` and `sys` of this machine are.

    Returns:
        A row for each thing, always in the same order.

    Raises:
        UsageError: The folder holds something else than upstream, or no CPU may be used.
        EnvironmentLacksError: Nothing tells which CPUs this machine has.
    """
    if tree:
        # Before the long part.
        holds_upstream(tree)
    topology = read_topology(None, root=root)
    placement = place(topology)
    built = installed_backend()
    with ThreadPoolExecutor() as pool:
        searched = pool.submit(mpi_rows.find_mpis, built)
        named = pool.submit(hosts.ask_name)
        looked = pool.submit(read_tree, tree) if tree else None
        # What takes longest is asked from here: only this thread is told of Ctrl-C, and then stops it.
        report = ask_torch(placement.seats[0].cpus, placement.threads)
        mpis, (name, addresses) = searched.result(), named.result()
        read = looked.result() if looked else None
    session = limits.ask_session()
    requirements = packages.train_requirements()
    faster = torch_rows.faster_dtype(report) or "bf16"
    dtype = read.options.dtype if read and read.done else faster
    needs = {each: rank_need(shape, Workload(dtype=each)) for each in get_args(Dtype)}
    plans = {each: plan_memory(topology, placement, need) for each, need in needs.items()}
    rows = (
        packages.python(requirements),
        packages.packages(requirements),
        torch_rows.torch(report),
        torch_rows.backend(report, built, read, next(iter(mpis.others), "intel")),
        mpi_rows.mpi(report, built, mpis, read),
        torch_rows.bf16(report, topology, read, root),
        limits.cpus(topology),
        machine.numa(topology, placement),
        machine.hbm(root, topology, plans[dtype]),
        machine.memory(root, topology, plans, dtype, read),
        kernel.swap(root),
        kernel.huge_pages(root),
        kernel.numa_balancing(root, topology),
        kernel.governor(root),
        limits.shared_memory(root, session, len(placement.seats)),
        limits.ulimits(root, session, placement, needs[dtype].peak_bytes),
        limits.memory_policy(session, topology),
        hosts.hostname(name, addresses),
        hosts.slurm(),
        hosts.libraries(),
        *((patched(read, faster), launch_script(read, topology)) if read else ()),
    )
    # Who is root may have no sudo, as in containers.
    return rows if session.user else tuple(replace(row, mend=row.mend.replace("sudo ", "")) for row in rows)
