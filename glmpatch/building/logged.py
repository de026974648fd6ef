"""Keeps the log of a build's step if it fails."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from textwrap import indent

from glmpatch.errors import BuildFailedError
from glmpatch.process import CommandFailedError

_TAIL_LINES = 25
_WIDEST = 300


def logged(
    lines: Generator[str, None, None], what: str, *, report: tuple[re.Pattern[str], str] | None = None
) -> Generator[str, None, None]:
    """Hand on what a program prints.

    Args:
        lines: From `stream`.
        what: The step, as the subject of a sentence: "the compilation".
        report: How a line of the tool's work begins, and the line where the tool, behind some of those, starts to
            report that something in it has failed. What failed stands before.

    Raises:
        BuildFailedError: The program failed. Its last words are shown, and a file with all of them is named.
    """
    printed: list[str] = []
    try:
        with closing(lines):
            for line in lines:
                printed.append(line)
                yield line
    except CommandFailedError as error:
        said = _before_report(printed, *report) if report else printed
        tail = "\n".join(line[:_WIDEST] for line in said[-_TAIL_LINES:])
        raise BuildFailedError(
            f"{what} failed with exit code {error.returncode}:\n{indent(tail, '    ')}",
            hint=f"all that was printed is in {_keep(printed)}",
        ) from error


def _before_report(printed: Sequence[str], work: re.Pattern[str], report: str) -> Sequence[str]:
    begin = next((number for number, line in enumerate(printed) if work.match(line)), len(printed))
    return printed[: printed.index(report, begin)] if report in printed[begin:] else printed


def _keep(lines: Sequence[str]) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="glmpatch-build-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.writelines(f"{line}\n" for line in lines)
    return Path(file.name)
