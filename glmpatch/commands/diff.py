"""`glmpatch diff`."""

from __future__ import annotations

from pathlib import Path

import click

from glmpatch.commands.options import series_options, target_argument
from glmpatch.console import make_console, print_conflicts, print_diff
from glmpatch.errors import ExitCode
from glmpatch.patching.apply import require_upstream, survey
from glmpatch.patching.diff import unified_diff
from glmpatch.patching.series import Series, load_upstream


@click.command()
@target_argument
@series_options
def command(*, target: Path, series: Series) -> int:
    """Show what apply would change, as a unified diff.

    `git apply` can read the output. Conflicts go to standard error, and the exit code is then 1.
    """
    require_upstream(target, load_upstream())
    plan = survey(target, series)
    console = make_console()
    for path, after in plan.after.items():
        print_diff(console, unified_diff(path, plan.before[path], after))
    print_conflicts(make_console(stderr=True), plan)
    return ExitCode.CONFLICT if plan.conflicts else ExitCode.DONE
