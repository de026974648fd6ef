"""What is expected of torch's tests: all pass but those in `expected.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from tests.conformance.driver import Verdict

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True)
class Absence:
    """Tests that do not pass, and why.

    Attributes:
        kind: What they lack: GPUs, `ranks`, something that torch gives no backend but another (`refused`), or nothing
            but that torch itself has switched them off (`torch`).
        says: A pattern of what such a test says of it; when it is lifted, if torch leaves it out.
        left_out: Whether a decorator of torch's leaves them out before they run.
        below: Only with fewer ranks than this.
    """

    kind: Literal["gpu", "ranks", "torch", "refused"]
    reason: str
    says: str
    tests: tuple[str, ...]
    left_out: bool = False
    below: int | None = None

    def explains(self, verdict: Verdict) -> bool:
        """Whether the test did what is said here, where it is not lifted or not left out."""
        if self.left_out:
            return verdict.outcome == "left out"
        return verdict.outcome == "skipped" and re.search(self.says, verdict.text) is not None


@dataclass(frozen=True)
class Lifted:
    """Tests that torch leaves out for this backend, and that run all the same.

    Attributes:
        fails_job: See `Suite`.
    """

    reason: str
    tests: tuple[str, ...]
    fails_job: bool = False


@dataclass(frozen=True)
class Table:
    """All of `expected.toml`. A test can be absent for one reason with few ranks and for another with more."""

    lifted: tuple[Lifted, ...]
    absent: tuple[Absence, ...]

    def lifted_tests(self, *, fails_job: bool) -> list[str]:
        return [name for group in self.lifted if group.fails_job == fails_job for name in group.tests]

    @cached_property
    def all_lifted(self) -> frozenset[str]:
        return frozenset(name for group in self.lifted for name in group.tests)

    @cached_property
    def all_absent(self) -> frozenset[str]:
        return frozenset(name for absence in self.absent for name in absence.tests)

    def absence(self, name: str, ranks: int) -> Absence | None:
        """The first that holds, in the order of the file."""
        for absence in self.absent:
            if name in absence.tests and (absence.below is None or ranks < absence.below):
                return absence
        return None

    def problems(self, verdicts: Mapping[str, Verdict], ranks: int) -> list[str]:
        """Where the verdicts on all tests differ from what is expected, a line or more for each."""
        listed = self.all_lifted | self.all_absent
        found = [f"{name}: listed, but torch has no such test" for name in sorted(listed - verdicts.keys())]
        found += [
            f"{name}: listed as lifted, but torch does not leave it out"
            for name in sorted(self.all_lifted & verdicts.keys())
            if verdicts[name].outcome != "failed" and not verdicts[name].lifted
        ]
        for name, verdict in verdicts.items():
            absence = self.absence(name, ranks)
            if absence is None and verdict.outcome != "passed":
                found.append(f"{name}: {verdict.outcome}, and not listed\n{verdict.text}")
            elif absence is not None and not absence.explains(verdict):
                found.append(f"{name}: {verdict.outcome}, but listed: {absence.reason}\n{verdict.text}")
        return found

    def lifting_problems(self, verdicts: Mapping[str, Verdict], ranks: int) -> list[str]:
        """What is wrong with the reasons why tests are left out, after all of these were lifted."""
        found = []
        for name, verdict in verdicts.items():
            absence = self.absence(name, ranks)
            if absence is None or not absence.left_out:
                found.append(f"{name}: not listed as left out with {ranks} ranks")
            elif verdict.outcome == "passed" or not re.search(absence.says, verdict.text):
                found.append(f"{name}: {verdict.outcome}, but listed: {absence.reason}\n{verdict.text}")
        return found


def load_table() -> Table:
    """The table of this folder."""
    return msgspec.toml.decode(FILE.read_bytes(), type=Table)
