"""`glmpatch doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glmpatch.commands.options import json_option
from glmpatch.console import make_console, print_json, print_line, printable
from glmpatch.doctor.examine import examine
from glmpatch.doctor.row import Row, State
from glmpatch.errors import ExitCode
from glmpatch.machine.need import CHATGLM_6B, ModelShape
from glmpatch.wording import count

_STYLES = {State.PASS: "green", State.WARN: "yellow", State.FAIL: "bold red"}


@click.command()
@click.argument("tree", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--model-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The config.json of the model to train. Default: that of ChatGLM-6B.",
)
@json_option
def command(*, tree: Path | None, model_config: Path | None, as_json: bool) -> int:
    """Say what is missing or slow on this machine, and what mends it.

    Looks at this environment and this machine, and at TREE, a folder of ChatGLM-6B, if it is named. Changes nothing.
    The exit code is 1 if something would keep the training from running; what only makes it slow is a warning.
    """
    shape = ModelShape.from_config(model_config.read_bytes()) if model_config else CHATGLM_6B
    console = make_console(stderr=as_json)
    with console.status("looking at everything"):
        rows = examine(tree, shape=shape)
    if as_json:
        print_json(rows)
    else:
        _print(console, rows)
    return ExitCode.CONFLICT if any(row.state is State.FAIL for row in rows) else ExitCode.DONE


def _print(console: Console, rows: Sequence[Row]) -> None:
    """The table, and below it what to type, unfolded so that it can be copied."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(overflow=overflow, no_wrap=overflow != "fold")
    for row in rows:
        table.add_row(Text(row.state.value, _STYLES[row.state]), row.title, Text(printable(row.evidence)))
    console.print(table)
    console.print()
    for row in rows:
        if row.mend:
            print_line(console, Text(row.state.value, _STYLES[row.state]), f"  {row.title}:")
            print_line(console, f"      {row.mend}")
    states = Counter(row.state for row in rows)
    told = [count(states[State.FAIL], "failure"), count(states[State.WARN], "warning")]
    print_line(console, f"{' and '.join(told)} in {count(len(rows), 'check')}")
