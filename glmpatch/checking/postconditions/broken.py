"""What a postcondition finds, and the two texts that it looks at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that the result of an edit does not keep.

    Attributes:
        expected: What was promised.
        found: What stands there instead.
        line: 1-based line in the result, if there is a place.
    """

    expected: str
    found: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Edited:
    """The text of a file before and behind its edits, without a byte order mark and with LF line endings."""

    before: str
    after: str


def first_line(text: str) -> str:
    """The start of a text that may be long, for a message."""
    return (text.strip().splitlines() or [""])[0][:120]
