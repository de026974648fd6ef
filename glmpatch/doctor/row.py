"""What the doctor says: a row for each thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it stands with one thing."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """Training works, but slowly, or not on several hosts."""
    FAIL = "fail"
    """Training does not work."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found about one thing.

    Attributes:
        id: Its name for programs. It does not change.
        title: Its name for people.
        state: How it stands.
        evidence: What was seen, with the number and the file or the program that it is from.
        mend: The command that mends it; "" if there is nothing to mend.
    """

    id: str
    title: str
    state: State
    evidence: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. Its three methods make the row of it."""

    id: str
    title: str

    def passes(self, evidence: str) -> Row:
        """It is fine, or does not matter here."""
        return Row(self.id, self.title, State.PASS, evidence)

    def warns(self, evidence: str, mend: str) -> Row:
        """It costs speed, or will be missed later."""
        return Row(self.id, self.title, State.WARN, evidence, mend)

    def fails(self, evidence: str, mend: str) -> Row:
        """It keeps the training from running."""
        return Row(self.id, self.title, State.FAIL, evidence, mend)
