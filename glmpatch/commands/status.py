"""`glmpatch status`."""

from __future__ import annotations

from pathlib import Path

import click

from glmpatch.commands.options import json_option, series_options, target_argument
from glmpatch.console import make_console, plan_as_json, print_json, print_left_alone, print_plan
from glmpatch.errors import ExitCode
from glmpatch.patching.apply import require_upstream, survey
from glmpatch.patching.series import Series, load_upstream


@click.command()
@target_argument
@series_options
@json_option
def command(*, target: Path, series: Series, as_json: bool) -> int:
    """Show where each patch stands in a folder.

    Reads TARGET as it is now, uncommitted changes included, and holds it against the patches with the options given
    here: name the --backend and --dtype that it was patched with. The exit code is 1 if a patch is in conflict.
    """
    pin = load_upstream()
    require_upstream(target, pin)
    plan = survey(target, series)
    if as_json:
        print_json(plan_as_json(plan, pin.left_alone(target)))
    else:
        console = make_console()
        print_plan(console, plan)
        print_left_alone(console, pin.left_alone(target))
    return ExitCode.CONFLICT if plan.conflicts else ExitCode.DONE
