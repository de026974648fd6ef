"""`glmpatch check`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.check import Selection, check_commits, check_folder
from glmpatch.checking.heads import heads_to_check
from glmpatch.checking.history import read_history
from glmpatch.checking.model import Report
from glmpatch.checking.source import Source
from glmpatch.commands.check_options import report_options, source_options
from glmpatch.commands.options import series_options
from glmpatch.console import make_console
from glmpatch.errors import ExitCode, UsageError
from glmpatch.mirror import Mirror
from glmpatch.patching.apply import require_upstream
from glmpatch.patching.series import Series, load_upstream
from glmpatch.reporting.output import Output, write_report


@click.command()
@series_options
@source_options
@click.option("--ref", "refs", multiple=True, help="Only this commit, branch or tag. Can be repeated.")
@click.option("--history", is_flag=True, help="Every older commit, too, that touches a patched file.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Of the history, what was committed on this day (UTC) or later.",
)
@click.option(
    "--tree",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="This folder instead: a fork of your own.",
)
@report_options
def command(
    *,
    series: Series,
    source: Source,
    cache: ResultCache,
    refs: tuple[str, ...],
    history: bool,
    since: datetime | None,
    tree: Path | None,
    outputs: tuple[Output, ...],
) -> int:
    """See whether the patches still apply to upstream.

    Checks the pinned commit and the newest commit of each branch of the official repository. It is read through a
    mirror in your cache folder: there is no working tree, and nothing of upstream is run. What was found out about a
    file is kept, so that the next check costs what has changed.

    The exit code is 1 if a patch does not apply, and 3 if upstream cannot be reached. What only older commits had is
    shown, but is no drift.
    """
    if tree and (refs or history or source.upstream or source.offline):
        raise UsageError("--tree checks a folder", hint="leave --ref, --history, --upstream and --offline out")
    if since and not history:
        raise UsageError("--since is about the history", hint="add --history")
    pin = load_upstream()
    errors = make_console(stderr=True)

    def check(mirror: Mirror) -> Report:
        heads = heads_to_check(mirror, pin, refs, may_lack_pin=source.upstream is not None)
        first_day = since and since.replace(tzinfo=timezone.utc)
        selection = Selection(mirror.url, heads, history, first_day)
        commits = read_history(mirror.objects, series, heads)
        return check_commits(commits, selection, series, cache, status.update)

    with errors.status("") as status:
        if tree:
            require_upstream(tree, pin)
            report = check_folder(tree, series, cache)
        else:
            report = source.ask(pin, check, status.update)
    write_report(report, outputs, make_console())
    return ExitCode.CONFLICT if report.has_drifted else ExitCode.DONE
