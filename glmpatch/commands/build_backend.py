"""`glmpatch build-backend`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import get_args

import click
from rich.table import Table

from glmpatch.building.backend import BackendOptions, BackendResult, BackendState, build_backend
from glmpatch.building.steps import BuildEvent, Progress, StepStarted
from glmpatch.building.toolchain import AUTOLOAD
from glmpatch.console import make_console
from glmpatch.mpi import FlavourId

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--mpi", "flavour", type=click.Choice(get_args(FlavourId)), required=True, help="The MPI to build for.")
@click.option("--mpi-root", type=_FOLDER, help="The folder that holds its bin/mpirun. Default: look for it.")
@click.option("--wheel-dir", type=_FOLDER, help="Put the wheel there instead of installing it.")
@click.option("--jobs", type=click.IntRange(1), help="Compilers to run at once. Default: one on each core.")
@click.option("--force", is_flag=True, help="Build although nothing has changed.")
def command(
    *, flavour: FlavourId, mpi_root: Path | None, wheel_dir: Path | None, jobs: int | None, force: bool
) -> None:
    """Give the installed PyTorch an MPI backend.

    Compiles a small extension for the PyTorch of this environment, proves it with two ranks and installs it, so that
    init_process_group("mpi") works with no other line of code. An MPI that is not found is installed from the package
    index into this environment.
    """
    console = make_console()
    options = BackendOptions(flavour, mpi_root, wheel_dir, jobs, force)
    with console.status("") as status:

        def on_event(event: BuildEvent) -> None:
            if isinstance(event, StepStarted):
                console.print(f"* {event.title}", markup=False, soft_wrap=True)
                status.update("")
            elif isinstance(event, Progress):
                status.update(f"{event.done} of {event.total} steps")

        result = build_backend(options, on_event)
    if result.state is BackendState.OWN:
        console.print(f"torch {result.torch} was built with MPI and has its own backend: nothing to do", markup=False)
        return
    console.print(_table(result))
    if result.state is BackendState.CURRENT:
        console.print("nothing to do: nothing has changed since it was built")
    # How PyTorch itself reads it.
    if os.environ.get(AUTOLOAD, "1") != "1" and not result.wheel:
        console.print(f"{AUTOLOAD} is set here: until it is unset, PyTorch does not load the backend", soft_wrap=True)


def _table(result: BackendResult) -> Table:
    """What there is now, a line for each fact."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    assert result.info is not None  # noqa: S101 - for mypy: the backend is ours
    table.add_row("backend", f"glmpatch-mpi {result.info.version}")
    table.add_row("torch", result.info.torch)
    table.add_row("MPI", f"{result.info.mpi} {result.info.mpi_version} in {result.info.mpi_root}")
    table.add_row("compiler", result.info.compiler)
    if result.proof:
        dtypes = " and ".join(result.proof.dtypes)
        seen = f"all_reduce of {dtypes} is right, a step of DDP gives equal gradients"
        table.add_row("proof", f"{result.proof.ranks} ranks: {seen}")
    table.add_row("wheel" if result.wheel else "installed", str(result.wheel or sys.prefix))
    return table
