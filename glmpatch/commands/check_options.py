"""The options of the commands that look at upstream's history, apart from those that must start quickly."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import click
from platformdirs import user_cache_path

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.source import Source
from glmpatch.commands.options import Command, with_options
from glmpatch.reporting import FORMATS
from glmpatch.reporting.output import plan_outputs


def source_options(command: Command) -> Command:
    """Add the options that say where upstream is read from; the command gets them as `source` and `cache`."""

    @wraps(command)
    def wrapper(*, upstream: str | None, offline: bool, timeout: float, no_cache: bool, **rest: Any) -> Any:
        cache = ResultCache(None if no_cache else user_cache_path("glmpatch") / "results")
        return command(source=Source(upstream, offline, timeout), cache=cache, **rest)

    return with_options(
        wrapper,
        click.option("--upstream", metavar="URL", help="Another repository: a URL, or the path of a local one."),
        click.option("--offline", is_flag=True, help="Take the mirror as it is; fetch nothing."),
        click.option(
            "--timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            default=60,
            show_default=True,
            help="Give up on a server that says nothing for so long.",
        ),
        click.option("--no-cache", is_flag=True, help="Try the patches on every file anew."),
    )


def report_options(command: Command) -> Command:
    """Add the options that say what becomes of a report; the command gets them as `outputs`."""

    @wraps(command)
    def wrapper(*, formats: tuple[str, ...], files: tuple[Path, ...], **rest: Any) -> Any:
        return command(outputs=plan_outputs(formats, files), **rest)

    return with_options(
        wrapper,
        click.option(
            "--format",
            "formats",
            multiple=True,
            type=click.Choice(list(FORMATS)),
            help="How to report. Can be repeated, each but the last with its own -o.",
        ),
        click.option(
            "-o",
            "--output",
            "files",
            multiple=True,
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the report to a file. Without --format, its suffix tells the format.",
        ),
    )
