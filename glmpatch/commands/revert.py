"""`glmpatch revert`."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from glmpatch.commands.options import json_option, target_argument
from glmpatch.console import make_console, print_json, print_line
from glmpatch.launching.in_tree import SCRIPT, remove_from_tree
from glmpatch.patching.apply import require_upstream, revert
from glmpatch.patching.series import load_upstream


@click.command()
@target_argument
@json_option
def command(*, target: Path, as_json: bool) -> None:
    """Take back what apply did.

    The commits of apply are reverted by one new commit; changes without a commit get their old bytes back. What you
    changed since stays. If you changed the same lines, nothing is written and the files are named. The launch script is
    removed, unless you changed it or wrote your own.
    """
    require_upstream(target, load_upstream())
    reverted = revert(target)
    removed = [SCRIPT] if remove_from_tree(target) else []
    kept = [SCRIPT] if os.path.lexists(target / SCRIPT) else []
    if as_json:
        print_json({**msgspec.to_builtins(reverted), "removed": removed, "kept": kept})
        return
    console = make_console()
    for path in reverted.written:
        print_line(console, f"reverted {path}")
    if reverted.commit:
        print_line(console, f"in commit {reverted.commit[:10]}: {', '.join(reverted.patches)}")
    for path in removed:
        print_line(console, f"removed {path}")
    for path in kept:
        print_line(console, f"kept {path}: apply did not write it, or it was changed since")
    if not (reverted.written or removed):
        print_line(console, "nothing to revert")
