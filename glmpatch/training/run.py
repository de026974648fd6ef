"""Runs a training script of the patched tree with several ranks, and reads what it leaves."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from glmpatch.errors import GlmpatchError
from glmpatch.process import CommandFailedError, stream
from glmpatch.training.launcher import Launcher
from glmpatch.training.progress import Progress, ProgressParser, is_noise

_TAIL_LINES = 25
# Where torchrun, Intel MPI, MPICH or Open MPI starts to report that a rank has failed. Its own words stand before.
_REPORTS = (
    "torch/distributed/elastic/",
    "BAD TERMINATION OF ONE OF YOUR",
    "application called MPI_Abort",
    "MPI_ABORT was invoked",
    "prterun detected that",
)
# Settings of the user's that would lead the libraries out of the folder, or to other ranks.
_FOREIGN = ("HF_", "TRANSFORMERS_", "TORCHELASTIC_", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES")


class TrainingError(GlmpatchError):
    """A training run failed, or did not do what it is for."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A script of upstream to run.

    Attributes:
        script: The script. It is run in its own folder, once for each rank.
        ranks: The number of ranks, all on this machine.
        launcher: What starts them.
        settings: Variables for the script, over those of `training_environment`.
        cache: A folder for everything that the libraries cache.
        log: A file for all that the ranks print.
    """

    script: Path
    ranks: int
    launcher: Launcher
    settings: Mapping[str, str]
    cache: Path
    log: Path


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What the trainer wrote down in its output folder.

    Attributes:
        steps: Optimizer steps done.
        losses: The logged losses in nats per token; each is the mean since the one before.
        samples_per_second: Over the whole training, all ranks together.
        checkpoint: The folder of the last checkpoint.
    """

    steps: int
    losses: tuple[float, ...]
    samples_per_second: float
    checkpoint: Path


def train(run: TrainingRun, on_progress: Callable[[Progress], None]) -> None:
    """Run the script to its end; tell each step. Nothing is left running, however this ends.

    Raises:
        TrainingError: A rank failed. Its last words and the log are named.
    """
    command = run.launcher.command(run.ranks, run.script.name, run.cache)
    inherited = run.launcher.environment(os.environ)
    environment = {**training_environment(run.cache, run.ranks, inherited), **run.settings}
    parser, words = ProgressParser(), _LastWords()
    begin = time.monotonic()
    try:
        with (
            run.log.open("w", encoding="utf-8") as log,
            closing(stream(command, cwd=run.script.parent, env=environment)) as lines,
        ):
            for line in lines:
                print(line, file=log, flush=True)
                words.feed(line)
                progress = parser.feed(line, seconds=time.monotonic() - begin)
                if progress is not None:
                    on_progress(progress)
    except CommandFailedError as error:
        raise TrainingError(
            f"{run.script.name} failed with exit code {error.returncode}:\n{indent(words.text, '    ')}",
            hint=f"all that the ranks printed is in {run.log}",
        ) from error


def training_environment(cache: Path, ranks: int, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`base` as the environment of a rank: offline, with all caches in `cache`, and its share of the cores."""
    inherited = {name: value for name, value in base.items() if not name.startswith(_FOREIGN)}
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    return {
        **inherited,
        # Upstream's scripts say python3: let it be this interpreter, and not the one beside an MPI in /usr/bin.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "HF_HOME": str(cache / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "WANDB_DISABLED": "true",
        # Else tqdm skips states when steps are quick.
        "TQDM_MININTERVAL": "0",
    }


def read_state(output: Path) -> TrainingState:
    """Read what a finished training left in its output folder.

    Raises:
        TrainingError: There is no record, no loss or no checkpoint in it.
    """
    record = output / "trainer_state.json"
    try:
        state: dict[str, Any] = json.loads(record.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"the training left no record of itself: {record}: {error}") from error
    history = state["log_history"]
    losses = tuple(float(entry["loss"]) for entry in history if "loss" in entry)
    speeds = [float(entry["train_samples_per_second"]) for entry in history if "train_samples_per_second" in entry]
    checkpoints = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not (losses and speeds and checkpoints):
        raise TrainingError(f"the training ended without a logged loss or a checkpoint, see {record}")
    return TrainingState(state["global_step"], losses, speeds[-1], checkpoints[-1])


class _LastWords:
    """The end of what the ranks said, without progress bars and without the launcher's own report."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._over = False

    def feed(self, line: str) -> None:
        self._over = self._over or any(report in line for report in _REPORTS)
        if not self._over and not is_noise(line):
            self._lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)
