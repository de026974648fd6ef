"""Runs a build step by step: a step is skipped if what goes into it is unchanged, and begun anew wherever it ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, TypeAlias

from glmpatch.building.failures import describe_failure
from glmpatch.building.state import BuildFolder, Record
from glmpatch.errors import BuildFailedError, GlmpatchError
from glmpatch.process import CommandFailedError, stream

# What ninja prints before each of its commands.
_NINJA = re.compile(r"\[(\d+)/(\d+)\]")
# What it prints before a command that failed; the command and all that it has printed follow.
_NINJA_FAILED = "FAILED: "
_NINJA_SPEAKS = re.compile(rf"{_NINJA.pattern}|{_NINJA_FAILED}|ninja: ")
_PYTHON = re.compile(r"python[\d.]*")
_ERROR = re.compile(r"error: |undefined reference|Error ")
_CAUSE_LINES = 20


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run.

    Attributes:
        argv: The program and its arguments.
        environment: What its environment has beyond that of the build.
        search: Folders that go before those that a variable like PATH has already.
        cwd: The folder to run it in; None for our own.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    search: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cwd: Path | None = None

    @property
    def digested(self) -> list[Any]:
        """What of it decides what comes out: of an interpreter not where it is."""
        program = "python" if _PYTHON.fullmatch(Path(self.argv[0]).name) else self.argv[0]
        return [program, self.argv[1:], self.environment, self.search, str(self.cwd)]

    def extend(self, base: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of the program, on top of that of the build."""
        paths = {
            name: os.pathsep.join([*folders, *filter(None, [base.get(name)])]) for name, folders in self.search.items()
        }
        return {**base, **paths, **self.environment}


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a step makes, of a name that is not known before.

    Attributes:
        folder: A folder.
        pattern: What its path below that looks like.
    """

    folder: Path
    pattern: str

    def exists(self) -> bool:
        """Whether there is one."""
        return any(self.folder.glob(self.pattern))

    def __str__(self) -> str:
        """It, as a shell would find it."""
        return f"{self.folder}/{self.pattern}"


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a build. All of it is data but for `action`, so that it can be run, shown, or written as a script.

    Attributes:
        id: Its name.
        title: What it does, in a few words.
        needs: The steps before it whose outcome it works on.
        commands: What to run, in order.
        action: What to do before them, where no program can do it.
        checks: What must succeed for the step to be done.
        files: Files to write first.
        tools: Files to write first that do not decide what comes out.
        inputs: What else decides what comes out.
        volatile: Variables for the commands that do not: the number of jobs, a cache.
        outputs: What must be there for the step to count as done.
        stale: What is left from a run with other inputs, and must go before it is run again.
        unfinished: What is left from a run that did not come to its end, and must go as well.
    """

    id: str
    title: str
    needs: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    action: Callable[[], None] | None = None
    checks: tuple[Command, ...] = ()
    files: Mapping[Path, str] = field(default_factory=dict)
    tools: Mapping[Path, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    volatile: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Path | Output, ...] = ()
    stale: tuple[Path, ...] = ()
    unfinished: tuple[Path, ...] = ()

    def digest(self, digests: Mapping[str, str]) -> str:
        """A hash of all that decides what comes out.

        Args:
            digests: The hashes of the steps before it. Only those that it needs count.
        """
        facts = {
            "needs": {need: digests[need] for need in self.needs},
            "commands": [command.digested for command in (*self.commands, *self.checks)],
            "files": {str(path): text for path, text in self.files.items()},
            "inputs": dict(self.inputs),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step has begun."""

    step: str
    title: str


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """A step is done already, and nothing that goes into it has changed."""

    step: str
    title: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step is done. `seconds` is how long it took this time."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """So many of the commands of a step's own build are done."""

    step: str
    done: int
    total: int


BuildEvent: TypeAlias = StepStarted | StepSkipped | StepEnded | Progress
OnEvent: TypeAlias = Callable[[BuildEvent], None]


def run_steps(steps: Iterable[Step], folder: BuildFolder, on_event: OnEvent, *, until: str | None = None) -> None:
    """Run the steps that are not done yet, in order.

    Args:
        steps: They may be made one by one: the next is asked for when the one before is done.
        folder: Where the build lives. It must be locked.
        on_event: Told how it goes.
        until: The last step to run; None for all.

    Raises:
        BuildFailedError: A step failed. Its log is named. Or the disk is full.
    """
    digests: dict[str, str] = {}
    for step in steps:
        digests[step.id] = digest = step.digest(digests)
        if is_done(step, digest, folder.read(step.id)):
            on_event(StepSkipped(step.id, step.title))
        else:
            # It may undo what they did, and still end with the inputs that they were done with.
            try:
                folder.reopen_behind(step.id)
                _run(step, digest, folder, on_event)
            except OSError as error:
                message, hint = describe_failure(f"the step {step.id!r}", None, [str(error)])
                raise BuildFailedError(message, hint=hint.rstrip("; ")) from error
        if step.id == until:
            return


def is_done(step: Step, digest: str, record: Record | None) -> bool:
    """Whether the step was done with the same inputs, and what came out is still there."""
    done = record is not None and record.done and record.digest == digest
    return done and all(path.exists() for path in step.outputs)


def _run(step: Step, digest: str, folder: BuildFolder, on_event: OnEvent) -> None:
    on_event(StepStarted(step.id, step.title))
    begin = time.monotonic()
    record = folder.read(step.id)
    if record is None or record.digest != digest:
        # Of no inputs: half of what is stale may be gone when this ends early.
        folder.write(step.id, Record("", done=False, needs=step.needs))
        for path in step.stale:
            remove(path)
    folder.write(step.id, Record(digest, done=False, needs=step.needs))
    for path in step.unfinished:
        remove(path)
    for path, text in {**step.files, **step.tools}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with folder.log(step.id).open("w", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
        if step.action:
            _act(step.action, log)
        for command in (*step.commands, *step.checks):
            _run_command(command, step, folder, log, on_event)
    for output in step.outputs:
        if not output.exists():
            raise BuildFailedError(
                f"the step {step.id!r} ended well, but {output} is not there",
                hint=f"all that was printed is in {folder.log(step.id)}",
            )
    if step.outputs:
        # What is written down as done must be on the disk, too, when the power fails.
        os.sync()
    seconds = time.monotonic() - begin
    folder.write(step.id, Record(digest, done=True, seconds=round(seconds, 1), needs=step.needs))
    on_event(StepEnded(step.id, seconds))


def _act(action: Callable[[], None], log: IO[str]) -> None:
    try:
        action()
    except GlmpatchError as error:
        log.write(f"{error.message}\n")
        raise


def _run_command(command: Command, step: Step, folder: BuildFolder, log: IO[str], on_event: OnEvent) -> None:
    """Run it, keep what it prints, and say what is likely wrong if it fails."""
    log.write(f"$ {shlex.join(command.argv)}\n")
    environment = command.extend({**folder.environment(os.environ), **step.volatile})
    said: list[str] = []
    try:
        with closing(stream(command.argv, cwd=command.cwd, env=environment)) as lines:
            for line in lines:
                said.append(line)
                log.write(f"{line}\n")
                if count := _NINJA.match(line):
                    on_event(Progress(step.id, int(count[1]), int(count[2])))
    except CommandFailedError as error:
        log.write(f"exit code {error.returncode}\n")
        message, hint = describe_failure(f"the step {step.id!r}", error.returncode, said, _cause(said))
        raise BuildFailedError(message, hint=f"{hint}all that was printed is in {folder.log(step.id)}") from error


def _cause(said: Sequence[str]) -> Sequence[str]:
    """The part that tells why a program failed.

    With ninja it is what its first command that failed printed, from the first error on: the commands beside it go on
    printing, and so does the tool that runs ninja.
    """
    failed = next((number for number, line in enumerate(said) if line.startswith(_NINJA_FAILED)), None)
    if failed is None:
        return said
    printed = list(takewhile(lambda line: not _NINJA_SPEAKS.match(line), said[failed + 1 :]))
    first = next((number for number, line in enumerate(printed) if _ERROR.search(line)), None)
    if first is None:
        # It spoke before: ninja lets some commands have the terminal to themselves.
        return said[: failed + 1 + len(printed)]
    return [said[failed], *printed[first : first + _CAUSE_LINES]]


def remove(path: Path) -> None:
    """Take away a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
