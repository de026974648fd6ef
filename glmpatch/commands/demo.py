"""`glmpatch demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from glmpatch.console import make_console, plan_as_json, print_json, print_plan
from glmpatch.patching.model import Backend, Dtype
from glmpatch.training.demo import DemoEvent, DemoOptions, DemoResult, Stage, run_demo

_LINES = 5


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="glmpatch-demo")
@click.option("--ranks", type=click.IntRange(1), default=2, show_default=True, help="Processes that train together.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), help="Default: bf16 if this CPU has a unit for it.")
@click.option(
    "--steps", type=click.IntRange(10), default=DemoOptions().steps, show_default=True, help="Optimizer steps."
)
@click.option("--backend", type=click.Choice(("mpi", "gloo")), help="Default: mpi if it is built, else gloo.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    *, folder: Path, ranks: int, dtype: Dtype | None, steps: int, backend: Backend | None, as_json: bool
) -> None:
    """Patch an embedded stand-in of upstream and train it on two ranks.

    Everything happens in FOLDER: a small repository of upstream's shape is cloned and patched, a tiny ChatGLM is built
    and tuned with the patched train.sh. Needs neither GitHub nor a model hub. The exit code is 0 only if the loss fell.
    """
    console = make_console(stderr=as_json)
    display = _Display(console)
    with display.bars:
        result = run_demo(folder, options=DemoOptions(ranks, dtype, steps, backend), on_event=display.show)
    if as_json:
        print_json(_as_json(result))
        return
    console.print()
    print_plan(console, result.applied.plan, commits=result.applied.commits, done=True)
    console.print()
    console.print(_table(result))
    console.print("The same for the real one:")
    console.print(_next_steps(result), markup=False, soft_wrap=True)


class _Display:
    """The demo while it goes: a live bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        rest = (TextColumn("{task.fields[loss]}"), TimeElapsedColumn())
        self.bars = Progress(*columns, *rest, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.bars.add_task("", total=None, loss="")
        self._told = 0

    def show(self, event: DemoEvent) -> None:
        """Show a stage or a step."""
        if isinstance(event, Stage):
            self._console.print(f"* {event.title}", markup=False)
            self.bars.reset(self._task, description=event.title, total=None, loss="")
            return
        loss = "" if event.loss is None else f"loss {event.loss:.3f}"
        self.bars.update(self._task, completed=event.step, total=event.max_steps, loss=loss)
        if not self._console.is_terminal and event.step - self._told >= event.max_steps // _LINES:
            self._told = event.step
            self._console.print(f"  step {event.step} of {event.max_steps}  {loss}", markup=False)


def _table(result: DemoResult) -> Table:
    """What happened, a line for each fact."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("ranks", f"{result.ranks}, talking through {result.launcher.title}")
    table.add_row("dtype", f"{result.dtype}: {result.dtype_reason}")
    table.add_row("loss", f"{result.loss_first:.4f} at first, {result.loss_last:.4f} after {result.steps} steps")
    table.add_row("speed", f"{result.samples_per_second:.1f} samples/s, all ranks together")
    table.add_row("checkpoint", str(result.checkpoint))
    table.add_row("log", str(result.log))
    return table


def _as_json(result: DemoResult) -> dict[str, Any]:
    paths = {name: str(getattr(result, name)) for name in ("tree", "checkpoint", "log")}
    facts = ("ranks", "dtype", "dtype_reason", "steps", "loss_first", "loss_last", "samples_per_second")
    report = plan_as_json(result.applied.plan, ())
    through = {"backend": result.launcher.backend, "through": result.launcher.title}
    return {**report, **through, **{name: getattr(result, name) for name in facts}, **paths}


def _next_steps(result: DemoResult) -> str:
    options = f"--backend {result.launcher.backend} --dtype {result.dtype}"
    return "\n".join(
        (
            f"    glmpatch apply ./ChatGLM-6B {options}",
            "    cd ChatGLM-6B/ptuning",
            f"    {result.launcher.to_type(result.ranks, 'train.sh')}",
        )
    )
