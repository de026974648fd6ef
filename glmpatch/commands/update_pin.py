"""`glmpatch update-pin`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.pin import find_new_pin, holds, write_pin
from glmpatch.checking.source import Source
from glmpatch.commands.check_options import source_options
from glmpatch.console import make_console, print_diff, print_line
from glmpatch.errors import EnvironmentLacksError, ExitCode, UsageError
from glmpatch.patching.model import Options
from glmpatch.patching.series import UpstreamPin, load_series, load_upstream
from glmpatch.reporting.as_text import print_report


@click.command()
@source_options
@click.option("--ref", help="Move towards this branch instead of the default one of upstream.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
def command(*, source: Source, cache: ResultCache, ref: str | None, dry_run: bool) -> int:
    """Move the pinned commit to the newest one that the patches apply to.

    For the maintainers of this project: it changes patches/upstream.toml. Shows what upstream changed in the patched
    files since the commit that was pinned. The exit code is 1 if the newest commit of all is not the one, because a
    patch does not apply to it.

    With --upstream, the commit must be on a branch of the official repository, too, because apply clones from there.
    Otherwise, or if that repository cannot be reached, nothing is pinned.
    """
    pin, series = load_upstream(), load_series(Options())
    console = make_console()

    with make_console(stderr=True).status("") as status:
        found = source.ask(pin, lambda mirror: find_new_pin(mirror, ref, pin, series, cache), status.update)
        if source.upstream and found.commit != pin.commit:
            _require_official(found.commit, pin, source, status.update)
    print_diff(console, found.diff)
    for commit in found.touching:
        print_line(console, f"{commit.hash[:10]} {commit.date.date()} ", commit.subject)
    if found.passed_over:
        print_report(console, found.report)
    if found.commit == pin.commit:
        why = "no newer one passes" if found.newer else "there is no newer one"
        print_line(console, f"the pinned commit stays {pin.commit}: {why}")
    elif dry_run:
        print_line(console, f"a dry run: {found.commit} would be pinned")
    else:
        write_pin(pin, found.commit)
        print_line(console, f"pinned {found.commit} in the place of {pin.commit}")
    return ExitCode.CONFLICT if found.passed_over else ExitCode.DONE


def _require_official(commit: str, pin: UpstreamPin, source: Source, say: Callable[[str], None]) -> None:
    try:
        is_official = replace(source, upstream=None).ask(pin, lambda mirror: holds(mirror, commit), say)
    except EnvironmentLacksError as error:
        raise EnvironmentLacksError(
            f"{commit} is not pinned, as the official repository cannot be asked for it: {error.message}",
            hint=f"try again when {pin.url} can be read",
        ) from error
    if not is_official:
        raise UsageError(
            f"{commit} is not pinned, as no branch of {pin.url} has it, and apply clones from there",
            hint="leave --upstream out, or name a branch that the official repository has with --ref",
        )
