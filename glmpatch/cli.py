"""The command line. Lazy: a command's module is imported when it runs, so that `--help` costs no more than click."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
from typing import Any, NoReturn

import click

from glmpatch import __version__
from glmpatch.credentials import without_credentials
from glmpatch.errors import EnvironmentLacksError, ExitCode, GlmpatchError

# The commands, each in the module of its name, and their one-line helps: a test holds them against the modules.
COMMANDS = {
    "apply": "Clone upstream, or take a folder of it, and patch it.",
    "build-backend": "Give the installed PyTorch an MPI backend.",
    "build-torch": "Build PyTorch from source against an MPI, install it and prove it.",
    "check": "See whether the patches still apply to upstream.",
    "demo": "Patch an embedded stand-in of upstream and train it on two ranks.",
    "diff": "Show what apply would change, as a unified diff.",
    "doctor": "Say what is missing or slow on this machine, and what mends it.",
    "launch": "Write the launch script that fits a machine.",
    "patches": "List the patches: what each does, why, and when it can go.",
    "revert": "Take back what apply did.",
    "status": "Show where each patch stands in a folder.",
    "topology": "Show a machine: sockets, clusters, cores, memory, and where each rank would sit.",
    "update-recipe": "Bring the recipe of build-torch up to date.",
    "update-pin": "Move the pinned commit to the newest one that the patches apply to.",
}


class LazyGroup(click.Group):
    """A group whose commands live in `glmpatch.commands`, one module each."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, without importing anything."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command that is asked for."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"glmpatch.commands.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101 - for mypy; a test calls every one
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Make the official ChatGLM-6B fine-tuning code run on Intel Xeon CPUs."""


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code. Every error ends here."""
    try:
        return _run(arguments)
    except (BrokenPipeError, SystemExit) as error:
        # rich and click make an exit with 1 of a broken pipe; nothing else in here exits.
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        # A reader that has seen enough (`glmpatch diff | head`) ends us quietly, as it ends any other program.
        _silence()
        return 128 + signal.SIGPIPE


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="glmpatch", standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(without_credentials(shown.getvalue()), nl=False, err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted", err=True)
        return ExitCode.INTERRUPTED
    except GlmpatchError as error:
        _show(error)
        return error.exit_code
    except PermissionError as error:
        _show(EnvironmentLacksError(f"{error.filename}: {error.strerror}"))
        return ExitCode.ENVIRONMENT
    except Exception:  # noqa: BLE001 - the one place that catches bugs
        _report_bug(arguments)
        return ExitCode.BUG
    return int(code or 0)


def main() -> NoReturn:
    """The console script."""
    # Being told to stop is like Ctrl-C: what is half done is cleaned up on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # So is a lost terminal, unless it is not to matter (`nohup`).
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # The trees of a plan live to the end of the run, and the collector would walk through them again and again.
    gc.disable()
    sys.exit(run(sys.argv[1:]))


def _hang_up(*_: object) -> NoReturn:
    # The kernel and the shell each send one: the second must not disturb the cleaning up, nor must writing in vain.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _silence()
    raise KeyboardInterrupt


def _silence() -> None:
    """Nobody reads what is still to come."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _show(error: GlmpatchError) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(without_credentials(error.message), err=True)
    if error.hint:
        click.secho("hint: ", fg="cyan", bold=True, nl=False, err=True)
        click.echo(without_credentials(error.hint), err=True)


def _report_bug(arguments: list[str]) -> None:
    import platform  # noqa: PLC0415 - needed only here
    import shlex  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import traceback  # noqa: PLC0415

    facts: list[Any] = [
        f"glmpatch {__version__}, Python {platform.python_version()}, {platform.platform()}",
        shlex.join(["glmpatch", *map(without_credentials, arguments)]),
        without_credentials(traceback.format_exc()),
    ]
    text = "\n\n".join(facts)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="glmpatch-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        click.echo(f"This is a bug in glmpatch. Please report it, with this text:\n\n{text}", err=True)
    else:
        click.echo(f"This is a bug in glmpatch. Please report it, with the file {file.name}", err=True)
