"""The only importer of subprocess: runs a program, without a shell, and leaves no child behind."""

from __future__ import annotations

import codecs
import io
import os
import select
import shlex
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import IO

from glmpatch.errors import EnvironmentLacksError, GlmpatchError

_TAIL_LINES = 40
_GRACE_SECONDS = 10


class CommandFailedError(GlmpatchError):
    """A program ended with a code other than zero.

    Attributes:
        returncode: Its exit code, negative for a signal.
        tail: The end of what it printed.
    """

    def __init__(self, command: Sequence[str], returncode: int, tail: str, *, hint: str = "") -> None:
        message = f"this command failed with exit code {returncode}: {shlex.join(command)}"
        if tail.strip():
            message += f"\n{indent(tail.rstrip(), '    ')}"
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.tail = tail


class SilentError(EnvironmentLacksError):
    """A program printed nothing for so long that it was stopped."""


def find_program(name: str) -> str:
    """The full path of a program.

    Raises:
        EnvironmentLacksError: It is not on PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise EnvironmentLacksError(f"{name} is not installed", hint=f"install {name} and put it on PATH")
    return path


def stream(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    silence: float | None = None,
) -> Generator[str, None, None]:
    """Run a program and yield what it prints, stdout and stderr together, as it comes.

    Lines end at a newline or, as progress bars do, at a carriage return; the ending is not part of the line. When the
    generator is closed before its end (an exception, Ctrl-C), the program and all its children are stopped.

    Args:
        command: The program and its arguments.
        cwd: The folder to run it in.
        env: The whole environment of the program; None for our own.
        silence: After how many seconds without output it is stopped, with all its children; None for never.

    Raises:
        EnvironmentLacksError: There is no such program.
        SilentError: It was stopped, because it printed nothing.
        CommandFailedError: It ended with a code other than zero.
    """
    resolved = [find_program(command[0]), *command[1:]]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    process = subprocess.Popen(
        resolved,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            for line in _lines(process.stdout, silence):
                tail.append(line)
                yield line
        except BaseException:
            _stop(process)
            raise
    if process.returncode != 0:
        raise CommandFailedError(command, process.returncode, "\n".join(tail))


def _lines(output: IO[bytes], silence: float | None) -> Generator[str, None, None]:
    """The lines of the output of a program, without their endings."""
    # Universal newlines: a carriage return ends a line, too.
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    data, rest = b"more", ""
    while data:
        if not poll.poll(None if silence is None else silence * 1000):
            raise SilentError(f"nothing came for {silence:g} seconds")
        data = os.read(output.fileno(), io.DEFAULT_BUFFER_SIZE)
        *lines, rest = (rest + decoder.decode(data, final=not data)).split("\n")
        yield from lines
    if rest:
        yield rest


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the program and its children to stop, then make them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
