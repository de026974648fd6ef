"""Builds PyTorch, shows how far it is, or what would be done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from glmpatch.building.packages import alone_in
from glmpatch.building.problem import require_none
from glmpatch.building.state import BuildFolder
from glmpatch.building.steps import OnEvent, Step, StepEnded, StepStarted, is_done, remove, run_steps
from glmpatch.building.torch.layout import Layout
from glmpatch.building.torch.options import TorchOptions
from glmpatch.building.torch.plan import STEPS, torch_steps
from glmpatch.building.torch.preflight import problems_of_torch
from glmpatch.errors import EnvironmentLacksError

_PREFLIGHT = STEPS[0]


class StepState(Enum):
    """How it stands with a step."""

    DONE = "done"
    CHANGED = "changed"
    """It was done, with other inputs: it will be done again."""
    BEGUN = "begun"
    """It failed, or was ended."""
    TO_DO = "to do"


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step, and how it stands with it.

    Attributes:
        step: The step.
        state: How it stands.
        seconds: How long it took.
        log: What it printed; None if it was never begun.
    """

    step: Step
    state: StepState
    seconds: float
    log: Path | None


def build_torch(options: TorchOptions, on_event: OnEvent, *, until: str | None = None, fresh: bool = False) -> None:
    """Build, install and prove PyTorch; go on where an earlier run ended.

    Args:
        options: What to build.
        on_event: Told how it goes.
        until: The last step; None for all.
        fresh: Forget what earlier runs have done.

    Raises:
        EnvironmentLacksError: Something is missing: all that is, is told at once. Or another build is at work.
        BuildFailedError: A step failed. What is done so far stays.
        UsageError: The folder of the build holds something else.
    """
    folder = BuildFolder(options.folder)
    folder.require_ours()
    folder.require_idle()
    begin = time.monotonic()
    on_event(StepStarted(_PREFLIGHT, "look for everything that the build needs"))
    require_none(list(problems_of_torch(options)), f"torch {options.version}")
    on_event(StepEnded(_PREFLIGHT, time.monotonic() - begin))
    if until == _PREFLIGHT:
        return
    with folder.hold(), alone_in(options.prefix, lambda: _busy(options.prefix)):
        if fresh:
            folder.forget()
            _remove_all(options)
        options.keep()
        run_steps(torch_steps(options), folder, on_event, until=until)


def _busy(prefix: Path) -> None:
    raise EnvironmentLacksError(
        f"another build is at work for {prefix}", hint="wait for it, or name another environment with --prefix"
    )


def _remove_all(options: TorchOptions) -> None:
    try:
        for path in Layout(options.folder).all:
            remove(path)
    except OSError as error:
        raise EnvironmentLacksError(f"{error.filename}: {error.strerror}", hint="remove it yourself") from error


def torch_status(options: TorchOptions) -> Iterator[StepStatus]:
    """How it stands with each step. Changes nothing."""
    folder = BuildFolder(options.folder)
    digests: dict[str, str] = {}
    for step in torch_steps(options):
        digests[step.id] = digest = step.digest(digests)
        record = folder.read(step.id)
        log = folder.log(step.id) if folder.log(step.id).exists() else None
        if record is None:
            state = StepState.TO_DO
        elif not record.done:
            state = StepState.BEGUN
        else:
            state = StepState.DONE if is_done(step, digest, record) else StepState.CHANGED
        yield StepStatus(step, state, record.seconds if record else 0.0, log)


def find_wheel(options: TorchOptions) -> Path | None:
    """The wheel, if it is packed."""
    return next(Layout(options.folder).wheels.glob("*.whl"), None)
