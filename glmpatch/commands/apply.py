"""`glmpatch apply`."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from glmpatch.commands.options import json_option, series_options, target_argument
from glmpatch.console import make_console, plan_as_json, print_json, print_left_alone, print_line, print_plan
from glmpatch.credentials import without_credentials
from glmpatch.errors import ExitCode, GlmpatchError
from glmpatch.launching.in_tree import SCRIPT, ScriptState, plan_for_here, write_into_tree
from glmpatch.patching.apply import Applied, apply, require_upstream, survey
from glmpatch.patching.series import Series, load_upstream
from glmpatch.upstream import clone
from glmpatch.wording import count

_LACKS_MPI = (
    "note: the patched code talks through MPI, and unless torch was built with MPI, this environment has no backend for"
    " it yet: glmpatch build-backend --mpi intel"
)


@click.command()
@target_argument
@series_options
@click.option("--upstream", metavar="URL", help="Clone from here: a URL, or the path of a local repository.")
@click.option("--ref", help="Clone this commit, branch or tag instead of the pinned commit.")
@click.option("--no-commit", is_flag=True, help="Change the files, but make no commits.")
@click.option("--allow-dirty", is_flag=True, help="Commit although other files have uncommitted changes.")
@click.option("--no-launch", is_flag=True, help="Write no launch script.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@json_option
def command(
    *,
    target: Path,
    series: Series,
    upstream: str | None,
    ref: str | None,
    no_commit: bool,
    allow_dirty: bool,
    no_launch: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Clone upstream, or take a folder of it, and patch it.

    TARGET is the folder to patch. If it does not exist yet, the official repository is cloned into it, at the pinned
    commit. All patches are applied, or nothing is written: a conflict is shown with file, line and reason.

    Then ptuning/launch_cpu.sh is written, which starts the training with the ranks that fit this machine. It is never
    committed, and one of yours is left alone.
    """
    pin = load_upstream()
    console = make_console(stderr=as_json)
    with tempfile.TemporaryDirectory() as scratch:
        root = target
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            root = Path(scratch, "upstream") if dry_run else target
            source = upstream or pin.url
            with console.status(f"cloning {without_credentials(source)}"):
                clone(source, ref or pin.commit, root, accept=lambda folder: require_upstream(folder, pin))
        else:
            if upstream or ref:
                print_line(
                    console, f"note: {target} exists and is patched as it is: --upstream and --ref are for a new clone"
                )
            require_upstream(root, pin)
        if dry_run:
            applied = Applied(survey(root, series))
        else:
            applied = apply(root, series, commit=not no_commit, allow_dirty=allow_dirty)
        launch = None if no_launch or applied.plan.conflicts else _write_script(root, dry_run=dry_run)
        left_alone = pin.left_alone(root)
    # The package that build-backend installs. Merely looked for: torch takes seconds to import.
    lacks_mpi = click.get_current_context().params["backend"] == "mpi" and find_spec("glmpatch_mpi") is None
    if as_json:
        report = plan_as_json(applied.plan, left_alone)
        print_json(
            {
                **report,
                "written": applied.written,
                "commits": applied.commits,
                "launch_script": launch and launch.state,
                "lacks_mpi_backend": lacks_mpi,
            }
        )
    else:
        print_plan(console, applied.plan, commits=applied.commits, done=bool(applied.commits or applied.written))
        print_left_alone(console, left_alone)
        if launch:
            print_line(console, f"launch script: {SCRIPT} {launch.told}")
        if lacks_mpi and not applied.plan.conflicts:
            print_line(console, _LACKS_MPI)
        print_line(console, _verdict(applied, target, dry_run=dry_run))
    return ExitCode.CONFLICT if applied.plan.conflicts else ExitCode.DONE


@dataclass(frozen=True, slots=True)
class _LaunchScript:
    """What became of the launch script, and that in words; no state if this machine cannot have one."""

    state: ScriptState | None
    told: str


def _write_script(root: Path, *, dry_run: bool) -> _LaunchScript:
    """Write the launch script. The patches do not need it: a machine that cannot have one is no failure."""
    try:
        plan = plan_for_here()
        state = write_into_tree(root, plan, dry_run=dry_run)
    except GlmpatchError as error:
        return _LaunchScript(None, f"is not written: {error.message}")
    if state is ScriptState.KEPT:
        return _LaunchScript(state, "is left alone: apply did not write it, or it was changed since")
    seats, threads = plan.placement.seats, plan.placement.threads
    verb = {ScriptState.WRITTEN: "would be written" if dry_run else "is written", ScriptState.CURRENT: "is up to date"}
    ranks = f"{count(len(seats), 'rank')} with {count(threads, 'thread')} each"
    return _LaunchScript(state, f"{verb[state]}: {ranks} on this machine, with {plan.mpi.title}")


def _verdict(applied: Applied, target: Path, *, dry_run: bool) -> str:
    """The last line: what happened, and how to take it back."""
    files = count(len(applied.plan.after), "file")
    if applied.plan.conflicts:
        return f"{count(len(applied.plan.conflicts), 'conflict')}: nothing was written"
    if not applied.plan.after:
        return "nothing to do: every patch is applied"
    if dry_run:
        return f"a dry run: {files} would change"
    made = f" in {count(len(applied.commits), 'commit')}" if applied.commits else ""
    return f"{files} changed{made}; to undo: glmpatch revert {shlex.quote(str(target))}"
