"""Knows the ways in which builds fail: what is likely wrong, and what mends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from textwrap import indent

import msgspec

from glmpatch.assets import asset_folder

_TAIL_LINES = 25
_WIDEST = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known way to fail.

    Attributes:
        id: Its name.
        patterns: Regular expressions. One of them is in a line that was printed.
        cause: What is likely wrong, a sentence.
        mend: What to do about it, a clause.
    """

    id: str
    patterns: tuple[str, ...]
    cause: str
    mend: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failures: tuple[Failure, ...]


@cache
def known_failures() -> tuple[Failure, ...]:
    """The table in `build/failures.toml`, what hides behind others first."""
    return msgspec.toml.decode((asset_folder("build") / "failures.toml").read_bytes(), type=_File).failures


def find_failure(lines: Sequence[str]) -> Failure | None:
    """The first of the table that is seen in what was printed."""
    # Compilers are told to colour their errors.
    text = _COLOURS.sub("", "\n".join(lines))
    for failure in known_failures():
        if any(re.search(pattern, text, re.MULTILINE) for pattern in failure.patterns):
            return failure
    return None


def describe_failure(
    what: str, returncode: int | None, lines: Sequence[str], tail: Sequence[str] | None = None
) -> tuple[str, str]:
    """The message and the beginning of the hint for a program that failed.

    Args:
        what: The subject of the message: "the step 'build'".
        returncode: Its exit code, negative for a signal; None if it is no program.
        lines: All that it printed.
        tail: What of it to show the end of; None for all.
    """
    shown = "\n".join(line[:_WIDEST] for line in (lines if tail is None else tail)[-_TAIL_LINES:])
    with_code = "" if returncode is None else f" with exit code {returncode}"
    message = f"{what} failed{with_code}:\n{indent(shown, '    ')}"
    failure = find_failure(lines)
    if failure is None:
        return message, ""
    return f"{message}\nwhat is likely wrong: {failure.cause}", f"{failure.mend}; "
