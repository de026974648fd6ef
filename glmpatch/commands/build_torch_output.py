"""What `glmpatch build-torch` prints: on a terminal a bar, elsewhere lines, and JSON for programs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from glmpatch.building.problem import Problem
from glmpatch.building.prove import Proof, read_proof
from glmpatch.building.state import BuildFolder
from glmpatch.building.steps import BuildEvent, Progress, StepEnded, StepSkipped, StepStarted
from glmpatch.building.torch.options import TorchOptions, kept_builds
from glmpatch.building.torch.plan import STEPS
from glmpatch.building.torch.preflight import notes_of_torch, problems_of_torch
from glmpatch.building.torch.run import StepState, StepStatus, find_wheel, torch_status
from glmpatch.building.torch.script import render_script
from glmpatch.console import make_console, print_document, print_line
from glmpatch.errors import EnvironmentLacksError, ExitCode, GlmpatchError
from glmpatch.patching.tree import write_own_file

if TYPE_CHECKING:
    from typing_extensions import Self

_STYLES = {StepState.DONE: "green", StepState.BEGUN: "yellow", StepState.CHANGED: "yellow", StepState.TO_DO: "dim"}
# Where there is no bar, a line this often.
_SECONDS = 60.0
_MINUTE, _HOUR = 60, 3600


class Screen(Protocol):
    """Something that shows how a build goes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def on_event(self, event: BuildEvent) -> None:
        """Show an event."""

    def finish(self, until: str | None) -> None:
        """Say what there is now."""


def make_screen(options: TorchOptions, *, as_json: bool) -> Screen:
    """The screen that fits where the output goes."""
    return _JsonScreen(options) if as_json else _TextScreen(options, make_console())


class _CountColumn(ProgressColumn):
    """A bar with the count and the time that is left, where a step counts what it does."""

    def __init__(self) -> None:
        self._bar, self._left = BarColumn(), TimeRemainingColumn()
        super().__init__()

    def render(self, task: Task) -> RenderableType:
        """The bar, or nothing."""
        if task.total is None:
            return Text()
        row = Table.grid(padding=(0, 1))
        row.add_row(self._bar.render(task), f"{task.completed:.0f} of {task.total:.0f}, left", self._left.render(task))
        return row


class _TextScreen:
    """A line for each step, and below them a bar, or a line each minute where there is no terminal."""

    def __init__(self, options: TorchOptions, console: Console) -> None:
        self._options = options
        self._console = console
        spinner, columns = SpinnerColumn(), (TextColumn("{task.description}"), TimeElapsedColumn(), _CountColumn())
        self._bar = Bar(spinner, *columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None
        self._last = self._begin = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_event(self, event: BuildEvent) -> None:
        """Show an event."""
        if isinstance(event, StepStarted):
            self._last = self._begin = time.monotonic()
            self._task = self._bar.add_task(event.step, total=None)
            print_line(self._console, Text("* ", "bold"), Text(f"{event.step}: ", "bold"), event.title)
        elif isinstance(event, StepSkipped):
            print_line(self._console, Text("* ", "dim"), f"{event.step}: done already")
        elif isinstance(event, StepEnded):
            self._remove_task()
            if event.seconds >= _MINUTE:
                print_line(self._console, Text(f"  {event.step} took {duration(event.seconds)}", "dim"))
        elif isinstance(event, Progress):
            if self._task is not None:
                self._bar.update(self._task, completed=event.done, total=event.total)
            self._line(event)

    def finish(self, until: str | None) -> None:
        """Say what there is now."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        if until in {None, "verify"}:
            table.add_row("torch", f"{self._options.full_version}, in {self._options.prefix}")
        if proof := _find_proof(self._options, until):
            right = f"{proof.ranks} ranks: all_reduce of {' and '.join(proof.dtypes)} is right"
            table.add_row("proof", f"{right}, a step of DDP gives equal gradients")
        if wheel := _find_wheel(self._options, until):
            table.add_row("wheel", str(wheel))
        table.add_row("logs", str(self._options.folder / "logs"))
        self._console.print(table)

    def _remove_task(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        if self._console.is_terminal or (now - self._last < _SECONDS and event.done < event.total):
            return
        self._last = now
        # None is done while ninja looks whether CMake has to run again.
        left = (now - self._begin) / max(event.done, 1) * (event.total - event.done)
        print_line(self._console, f"  {event.done} of {event.total}, about {duration(left)} left")


class _JsonScreen:
    """A line of JSON for each event."""

    def __init__(self, options: TorchOptions) -> None:
        self._options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is not None:
            self._write("failed", {"message": str(error), "hint": getattr(error, "hint", "")})

    def on_event(self, event: BuildEvent) -> None:
        """Show an event."""
        name = {StepStarted: "started", StepSkipped: "skipped", StepEnded: "ended", Progress: "progress"}[type(event)]
        self._write(name, msgspec.to_builtins(event))

    def finish(self, until: str | None) -> None:
        """Say what there is now."""
        wheel = _find_wheel(self._options, until)
        proved = _find_proof(self._options, until) is not None
        facts = {"torch": self._options.full_version, "prefix": str(self._options.prefix), "proved": proved}
        self._write("finished", {**facts, "wheel": str(wheel) if wheel else None})

    @staticmethod
    def _write(event: str, facts: dict[str, Any]) -> None:
        print_document(msgspec.json.encode({"event": event, **facts}).decode() + "\n")


def show_plan(options: TorchOptions, script: Path | None, *, fresh: bool, as_json: bool) -> int:
    """Show the steps and everything that is missing, also where the steps cannot all be told; write the script."""
    BuildFolder(options.folder).require_ours()
    problems = list(problems_of_torch(options))
    statuses: list[StepStatus] = []
    failure: GlmpatchError | OSError | None = None
    try:
        for status in torch_status(options):
            anew = replace(status, state=StepState.TO_DO, seconds=0.0, log=None)
            statuses.append(anew if fresh else status)
    except (GlmpatchError, OSError) as error:
        if not problems:
            raise
        failure = error
    _show_plan(options, statuses, problems, fresh=fresh, as_json=as_json)
    if failure:
        raise EnvironmentLacksError(str(failure), hint=getattr(failure, "hint", "")) from failure
    if script:
        write_own_file(script, render_script(options).encode())
        script.chmod(0o755)
    return ExitCode.ENVIRONMENT if problems else ExitCode.DONE


def _show_plan(
    options: TorchOptions, statuses: Sequence[StepStatus], problems: Sequence[Problem], *, fresh: bool, as_json: bool
) -> None:
    if as_json:
        facts = {"torch": options.full_version, "folder": str(options.folder), "prefix": str(options.prefix)}
        steps = [_as_json(status) for status in statuses]
        print_document(msgspec.json.encode({**facts, "missing": problems, "steps": steps}).decode() + "\n")
    else:
        console = make_console()
        print_line(console, f"torch {options.full_version}, with WORK={options.folder} and PREFIX={options.prefix}")
        for status in statuses:
            step = status.step
            print_line(console, Text(f"* {step.id}", "bold"), f" ({status.state.value}): {step.title}")
            for command in (*step.commands, *step.checks):
                print_line(console, Text(f"    {_shorten(command.argv, options)}", "dim"))
        for note in notes_of_torch(options, fresh=fresh):
            print_line(console, Text("note: ", "yellow"), note)
        for problem in problems:
            print_line(console, Text("missing: ", "bold red"), problem.what)
            print_line(console, f"  mend: {problem.mend}")


def show_status(folders: Sequence[Path], *, as_json: bool) -> int:
    """Show how far the build in each folder is, and return the exit code of the last that cannot be told."""
    code: int = ExitCode.DONE
    found: list[dict[str, Any]] = []
    builds: list[tuple[TorchOptions, list[StepStatus]]] = []
    console = make_console()
    for folder in folders:
        try:
            builds += [(build, list(torch_status(build))) for build in kept_builds(folder)]
        except (GlmpatchError, OSError) as error:
            code = getattr(error, "exit_code", ExitCode.ENVIRONMENT)
            found.append({"folder": str(folder), "error": str(error)})
            if not as_json:
                print_line(console, Text("error: ", "bold red"), f"{folder}: {error}")
    if as_json:
        found += [
            {"torch": build.full_version, "folder": str(build.folder), "steps": [_as_json(step) for step in steps]}
            for build, steps in builds
        ]
        print_document(msgspec.json.encode(found).decode() + "\n")
        return code
    if not builds and not found:
        print_line(console, "there is no build")
    for build, steps in builds:
        print_line(console, Text(f"torch {build.full_version}", "bold"), f", for {build.prefix}, in {build.folder}")
        table = Table(box=None, pad_edge=False, show_header=False)
        for status in steps:
            took = duration(status.seconds) if status.state is StepState.DONE else ""
            log = str(status.log) if status.log else ""
            table.add_row(f"  {status.step.id}", Text(status.state.value, _STYLES[status.state]), took, log)
        console.print(table)
    return code


def _find_proof(options: TorchOptions, until: str | None) -> Proof | None:
    """What was proved, unless that is of other inputs, or its log is gone."""
    log = BuildFolder(options.folder).log("verify")
    return read_proof(log) if until in {None, "verify"} and log.exists() else None


def _find_wheel(options: TorchOptions, until: str | None) -> Path | None:
    """The wheel, unless it is that of an earlier run."""
    packed = until is None or STEPS.index(until) >= STEPS.index("wheel")
    return find_wheel(options) if packed else None


def duration(seconds: float) -> str:
    """A length of time in words: `2 h 5 min`, `45 s`."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def _shorten(argv: Sequence[str], options: TorchOptions) -> str:
    """A command, with the two folders that nearly all of them are about by their names."""
    text = shlex.join(argv)
    for name, folder in (("WORK", options.folder), ("PREFIX", options.prefix)):
        text = text.replace(f"{folder}/", f"${name}/")
    return text


def _as_json(status: StepStatus) -> dict[str, Any]:
    commands = [command.argv for command in (*status.step.commands, *status.step.checks)]
    facts = {"id": status.step.id, "title": status.step.title, "state": status.state.value}
    return {**facts, "seconds": status.seconds, "log": str(status.log) if status.log else None, "commands": commands}
