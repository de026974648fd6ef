"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.series import load_series

Command = Callable[..., Any]

target_argument = click.argument("target", type=click.Path(file_okay=False, path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """The command with click options, shown in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def series_options(command: Command) -> Command:
    """Add the options that choose the patches; the command gets them as `series`."""

    @wraps(command)
    def wrapper(
        *,
        only: tuple[str, ...],
        skip: tuple[str, ...],
        backend: Backend,
        dtype: Dtype,
        patches: tuple[Path, ...],
        **rest: Any,
    ) -> Any:
        series = load_series(Options(backend, dtype), extra=patches)
        return command(series=series.select(only=only, skip=skip), **rest)

    return with_options(
        wrapper,
        click.option("--only", multiple=True, metavar="ID", help="Only this patch. Can be repeated."),
        click.option("--skip", multiple=True, metavar="ID", help="Not this patch. Can be repeated."),
        click.option(
            "--backend",
            type=click.Choice(get_args(Backend)),
            default="mpi",
            show_default=True,
            help="The torch.distributed backend of the patched code.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(get_args(Dtype)),
            default="bf16",
            show_default=True,
            help="bf16 is fast with AMX or AVX512-BF16; fp32 is for all other CPUs.",
        ),
        click.option(
            "--patches",
            multiple=True,
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Add the patch files (*.toml) of a folder of your own. Can be repeated.",
        ),
    )
