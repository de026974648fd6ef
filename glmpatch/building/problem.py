"""What the environment lacks, all of it told at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from glmpatch.errors import EnvironmentLacksError


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is missing, and what mends it, a clause each."""

    what: str
    mend: str


def pip(arguments: str) -> str:
    """The command that runs pip for this environment, which may not be active."""
    return f"{shlex.quote(sys.executable)} -m pip {arguments}"


def require_none(problems: Sequence[Problem], what: str) -> None:
    """Go on if there are none.

    Args:
        problems: What is missing.
        what: What cannot be built then.

    Raises:
        EnvironmentLacksError: There are some. It tells them all.
    """
    if problems:
        lines = [f"  - {problem.what}\n    mend: {problem.mend}" for problem in problems]
        raise EnvironmentLacksError("\n".join([f"{what} cannot be built here:", *lines]))
