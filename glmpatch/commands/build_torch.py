"""`glmpatch build-torch`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, get_args

import click

from glmpatch.building.torch.options import TorchChoices, TorchOptions, builds_folder
from glmpatch.building.torch.plan import STEPS
from glmpatch.building.torch.run import build_torch
from glmpatch.commands.build_torch_output import make_screen, show_plan, show_status
from glmpatch.commands.options import with_options
from glmpatch.errors import ExitCode, UsageError
from glmpatch.mpi import FlavourId

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
# What the build sets itself.
_OURS = {
    "MAX_JOBS": "use --jobs",
    "PYTORCH_BUILD_VERSION": "the wheel is found by it",
    "PYTORCH_BUILD_NUMBER": "the wheel is found by it",
}


def _text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """A text that can be given to programs and written into files."""
    if value == "":
        raise click.BadParameter("it is empty")
    if value is not None:
        _require_text(value)
    return value


def _require_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(f"{text!r} is not in UTF-8") from error
    if "\0" in text:
        raise click.BadParameter(f"{text!r} holds a NUL")


def _checksum(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise click.BadParameter("a SHA-256 has 64 hexadecimal digits")
    return value


def _variables(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` words as a dictionary."""
    pairs = [value.partition("=") for value in values]
    for name, sign, _ in pairs:
        if not sign or not (name.isascii() and name.isidentifier()):
            raise click.BadParameter(f"{name!r} is not of the form NAME=VALUE")
        if name in _OURS:
            raise click.BadParameter(f"{name} is set by the build: {_OURS[name]}")
    for value in values:
        _require_text(value)
    return {name: value for name, _, value in pairs}


def _choices(command: Any) -> Any:
    """The options that say what to build."""
    return with_options(
        command,
        click.option(
            "--mpi",
            "flavour",
            type=click.Choice(get_args(FlavourId)),
            default="intel",
            show_default=True,
            help="The MPI.",
        ),
        click.option(
            "--torch-version",
            "version",
            metavar="VERSION",
            callback=_text,
            help="Default: the one that is tested the most.",
        ),
        click.option("--prefix", type=_FOLDER, help="Install into this environment; it is made if it is not there."),
        click.option(
            "--mpi-root", type=_FOLDER, help="The folder that holds the MPI's bin/mpirun. Default: look for it."
        ),
        click.option(
            "--source",
            type=click.Path(exists=True, path_type=Path),
            help="A source tree or tarball, in place of a clone.",
        ),
        click.option("--sha256", metavar="HASH", callback=_checksum, help="The checksum that the tarball must have."),
        click.option("--url", callback=_text, help="Clone from here."),
        click.option(
            "--jobs", type=click.IntRange(1), help="Compilers to run at once. Default: as many as memory allows."
        ),
        click.option(
            "--set",
            "variables",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_variables,
            help="A variable of PyTorch's build, such as USE_KINETO=0. Can be repeated.",
        ),
        click.option(
            "--work-dir", type=_FOLDER, help="Where source, build and logs are. Default: in the user's cache."
        ),
        click.option("--recipe", type=_FILE, help="A recipe of your own, in the form of build/torch.toml."),
    )


@click.command()
@_choices
@click.option("--until", type=click.Choice(STEPS), help="Stop behind this step.")
@click.option("--resume/--fresh", default=True, help="Go on where an earlier run ended (the default), or start over.")
@click.option("--dry-run", is_flag=True, help="Show the plan and what is missing, and do nothing.")
@click.option("--script", type=_FILE, metavar="FILE", help="With --dry-run: write the plan as a shell script.")
@click.option("--status", is_flag=True, help="Show how far the builds are, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each event.")
def command(
    *, until: str | None, resume: bool, dry_run: bool, script: Path | None, status: bool, as_json: bool, **chosen: Any
) -> int:
    """Build PyTorch from source against an MPI, install it and prove it.

    Takes hours, and goes on where it ended: after Ctrl-C, a failure or a reboot, run the same command again. PyTorch's
    own MPI backend is patched so that it carries bf16, fp16 and bool.
    """
    if script and not dry_run:
        raise UsageError("--script goes with --dry-run", hint="add --dry-run, or leave --script out")
    if chosen["url"] and chosen["source"]:
        raise UsageError("--url and --source name two sources", hint="leave one of them out")
    if chosen["sha256"] and not (chosen["source"] and chosen["source"].is_file()):
        raise UsageError("--sha256 goes with a tarball", hint="name it with --source, or leave --sha256 out")
    work_dir = chosen["work_dir"]
    for path in (work_dir or builds_folder(), script, *chosen.values()):
        if isinstance(path, Path):
            # They are in scripts and in JSON, whole.
            _require_text(os.path.abspath(path))  # noqa: PTH100 - as the options do
    if status:
        return show_status([work_dir] if work_dir else sorted(builds_folder().glob("*")), as_json=as_json)
    options = TorchOptions(TorchChoices(**chosen))
    if dry_run:
        return show_plan(options, script, fresh=not resume, as_json=as_json)
    with make_screen(options, as_json=as_json) as screen:
        build_torch(options, screen.on_event, until=until, fresh=not resume)
        screen.finish(until)
    return ExitCode.DONE
