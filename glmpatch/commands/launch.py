"""`glmpatch launch`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

from glmpatch.commands.machine_options import topology_options
from glmpatch.console import make_console, print_line
from glmpatch.errors import EnvironmentLacksError, GlmpatchError, UsageError
from glmpatch.launching.plan import LaunchPlan, choose_mpi
from glmpatch.launching.script import render_script, write_script
from glmpatch.launching.verify import verify
from glmpatch.machine import presets
from glmpatch.machine.memory import judge, plan_memory
from glmpatch.machine.need import CHATGLM_6B, Workload, rank_need
from glmpatch.machine.picture import wrap
from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology, format_cpu_list
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.wording import count

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--mpi",
    type=click.Choice(["auto", *get_args(FlavourId)]),
    default="auto",
    show_default=True,
    help="The MPI. auto: the one that the installed backend was built for, else one that is found.",
)
@click.option(
    "--mpi-root",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds its bin/mpirun.  [default: look for it]",
)
@topology_options
@click.option(
    "--hostfile", type=_FILE, help="Train on the hosts that this file names, one a line. It is read at launch."
)
@click.option("--slurm", is_flag=True, help="Write a job for sbatch.")
@click.option(
    "--nodes",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many hosts, all like this machine.  [default: all of the host file, and one of Slurm's]",
)
@click.option("-o", "--output", type=_FILE, help="Write it there.  [default: standard output]")
@click.option("--force", is_flag=True, help="Replace a file that was changed by hand, or is something else.")
@click.option("--verify", "verifies", is_flag=True, help="Ask the MPI where it would put the ranks; fail if elsewhere.")
def command(
    *,
    mpi: str,
    mpi_root: Path | None,
    topology: Topology,
    placement: Placement,
    hostfile: Path | None,
    slurm: bool,
    nodes: int | None,
    output: Path | None,
    force: bool,
    verifies: bool,
) -> None:
    """Write the launch script that fits a machine.

    It starts train.sh, or another script of ChatGLM-6B/ptuning, with one rank on each cluster of cores and the mpirun
    of the MPI; before, it looks whether all that it needs is there.
    """
    if slurm and hostfile:
        raise UsageError("--slurm and --hostfile both say which hosts", hint="leave one of them out")
    if nodes and nodes > 1 and not (slurm or hostfile):
        raise UsageError(f"--nodes {nodes} does not say which hosts", hint="add --hostfile FILE, or --slurm")
    source = click.get_current_context().params["topology"]
    flavour = next((each for each in FLAVOURS if each == mpi), None)
    plan = LaunchPlan(
        choose_mpi(flavour, mpi_root, here=source is None and nodes is None),
        topology,
        placement,
        nodes=nodes or (None if hostfile else 1),
        hostfile=hostfile and hostfile.absolute(),
        slurm=slurm,
    )
    script = render_script(plan)
    lines = [*_summary(plan), *(_verified(plan, source) if verifies else ())]
    if output:
        write_script(output, script, force=force)
        lines.insert(0, f"{output} is written")
    # There is no standard output if it was closed.
    elif sys.stdout:
        sys.stdout.buffer.write(script)
    console = make_console(stderr=not output)
    print_line(console, "\n".join(wrap(lines, console.width)))


def _summary(plan: LaunchPlan) -> Iterator[str]:
    """What the script does, and whether the machine has the memory for it, in the best mode of its HBM."""
    ranks, each = len(plan.placement.seats), count(plan.placement.threads, "thread")
    yield f"ranks: {ranks}, with {each} each, on {plan.topology.source}, started by {plan.mpi.title}"
    yield from judge(plan_memory(plan.topology, plan.placement, rank_need(CHATGLM_6B, Workload())))[:2]
    for note in plan.topology.notes:
        yield f"note: {note}"


def _verified(plan: LaunchPlan, source: str | None) -> Iterator[str]:
    """What the MPI itself says of the placement.

    Raises:
        GlmpatchError: It would put a rank elsewhere.
        EnvironmentLacksError: It is not on this machine, or does not tell.
    """
    if plan.mpi.installation is None:
        raise EnvironmentLacksError(
            f"{plan.mpi.flavour.title} is not on this machine, and only itself can verify the script",
            hint=f"glmpatch build-backend --mpi {plan.mpi.flavour.id} installs it, or name its folder with --mpi-root",
        )
    xml = Path(source).read_bytes() if source and source not in presets.names() else None
    found = verify(plan.mpi.installation, plan.topology, plan.placement, xml=xml)
    wrong = [
        f"    rank {rank.rank}: {format_cpu_list(rank.cpus) or 'nowhere'}, and not {format_cpu_list(rank.expected)}"
        for rank in found.ranks
        if not rank.agrees
    ]
    if wrong:
        raise GlmpatchError(
            f"{found.mpi} would put these ranks on other CPUs:\n" + "\n".join(wrong), hint="choose another --mpi"
        )
    yield f"verified: {found.mpi} puts all {len(found.ranks)} ranks where the script says"
