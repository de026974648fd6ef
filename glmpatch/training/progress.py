"""What a run tells while it goes, read from what the trainer of transformers prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A bar without a name: those of the data preparation have one. mpirun may glue it to what the same rank has logged.
_BAR = re.compile(r"(?:^|\})\s*\d+%\|[^|]*\|\s*(\d+)/(\d+) \[")
_LOSS = re.compile(r"\{'loss': ([^,}]+)")
_ANY_BAR = re.compile(r"\d+%\|")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training is.

    Attributes:
        step: Optimizer steps done.
        max_steps: Optimizer steps in all.
        loss: The loss that was logged last, in nats per token, or None before the first.
        seconds: Since the run was started.
    """

    step: int
    max_steps: int
    loss: float | None
    seconds: float


class ProgressParser:
    """Reads the output of a run line by line."""

    def __init__(self) -> None:
        self._step = 0
        self._max_steps = 0
        self._loss: float | None = None

    def feed(self, line: str, *, seconds: float) -> Progress | None:
        """The new state, if `line` tells one that differs from the last.

        Args:
            line: One line; a progress bar's lines end at a carriage return.
            seconds: Since the run was started.
        """
        before = self._step, self._max_steps, self._loss
        bar, loss = _BAR.search(line), _LOSS.search(line)
        if bar:
            self._step, self._max_steps = int(bar[1]), int(bar[2])
        if loss:
            self._loss = _number(loss[1])
        if (self._step, self._max_steps, self._loss) == before:
            return None
        return Progress(self._step, self._max_steps, self._loss, seconds)


def is_noise(line: str) -> bool:
    """Whether a line is a state of a progress bar, or empty."""
    return not line.strip() or _ANY_BAR.search(line) is not None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
