"""`glmpatch revert`."""

from __future__ import annotations

from pathlib import Path

import click

from glmpatch.commands.options import json_option, target_argument
from glmpatch.console import make_console, print_json, print_line
from glmpatch.patching.apply import require_upstream, revert
from glmpatch.patching.series import load_upstream


@click.command()
@target_argument
@json_option
def command(*, target: Path, as_json: bool) -> None:
    """Take back what apply did.

    The commits of apply are reverted by one new commit; changes without a commit get their old bytes back. What you
    changed since stays. If you changed the same lines, nothing is written and the files are named.
    """
    require_upstream(target, load_upstream())
    reverted = revert(target)
    if as_json:
        print_json(reverted)
        return
    console = make_console()
    for path in reverted.written:
        print_line(console, f"reverted {path}")
    if reverted.commit:
        print_line(console, f"in commit {reverted.commit[:10]}: {', '.join(reverted.patches)}")
    if not reverted.written:
        print_line(console, "nothing to revert")
