"""`glmpatch demo`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from glmpatch.console import make_console, print_json, print_plan
from glmpatch.patching.model import Dtype
from glmpatch.training.demo import DemoEvent, DemoOptions, DemoResult, Stage, run_demo


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="glmpatch-demo")
@click.option("--ranks", type=click.IntRange(1), default=2, show_default=True, help="Processes that train together.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), help="Default: bf16 if this CPU has a unit for it.")
@click.option(
    "--steps", type=click.IntRange(10), default=DemoOptions().steps, show_default=True, help="Optimizer steps."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(*, folder: Path, ranks: int, dtype: Dtype | None, steps: int, as_json: bool) -> None:
    """Patch an embedded stand-in of upstream and train it on two ranks.

    Everything happens in FOLDER: a small repository of upstream's shape is cloned and patched, a tiny ChatGLM is built
    and tuned with the patched train.sh. Needs neither GitHub nor a model hub. The exit code is 0 only if the loss fell.
    """
    console = make_console(stderr=as_json)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, loss="")

        def show(event: DemoEvent) -> None:
            if isinstance(event, Stage):
                console.print(f"* {event.title}", markup=False)
                bars.reset(task, description=event.title, total=None, loss="")
            else:
                loss = "" if event.loss is None else f"loss {event.loss:.3f}"
                bars.update(task, completed=event.step, total=event.max_steps, loss=loss)

        result = run_demo(folder, options=DemoOptions(ranks, dtype, steps), on_event=show)
    if as_json:
        print_json(result)
        return
    console.print()
    print_plan(console, result.applied.plan, commits=result.applied.commits, done=True)
    console.print()
    console.print(_table(result))
    console.print("The same for the real one:")
    console.print(_next_steps(result), markup=False, soft_wrap=True)


def _table(result: DemoResult) -> Table:
    """What happened, a line for each fact."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("ranks", f"{result.ranks}, talking through {result.backend}")
    table.add_row("dtype", f"{result.dtype}: {result.dtype_reason}")
    table.add_row("loss", f"{result.loss_first:.4f} at first, {result.loss_last:.4f} after {result.steps} steps")
    table.add_row("speed", f"{result.samples_per_second:.1f} samples/s, all ranks together")
    table.add_row("checkpoint", str(result.checkpoint))
    table.add_row("log", str(result.log))
    return table


def _next_steps(result: DemoResult) -> str:
    options = f"--backend {result.backend} --dtype {result.dtype}"
    return "\n".join(
        (
            f"    glmpatch apply ./ChatGLM-6B {options}",
            "    cd ChatGLM-6B/ptuning",
            f"    torchrun --no-python --nproc-per-node {result.ranks} bash train.sh",
        )
    )
