"""The demo: a stand-in for upstream is cloned, patched and trained with several ranks, all in one folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from glmpatch.assets import asset_folder
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.patching.apply import Applied, apply, require_upstream
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.series import load_series, load_upstream
from glmpatch.process import stream
from glmpatch.training.corpus import make_corpus, write_data
from glmpatch.training.dtype import choose_dtype
from glmpatch.training.launcher import Launcher, find_launcher
from glmpatch.training.progress import Progress
from glmpatch.training.run import TrainingError, TrainingRun, read_state, train, training_environment
from glmpatch.upstream import clone

SEED = 7
_MARK = ".glmpatch-demo"
# As the stand-in's train.sh calls it.
_OUTPUT = "advert-pt-32-5e-2"
_NEEDED = ("torch", "transformers", "accelerate", "datasets", "sentencepiece")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user may choose.

    Attributes:
        ranks: Processes that train together.
        dtype: None for the one that pays on this machine.
        steps: Optimizer steps, at least 10: the loss is logged at every fifth.
        backend: None for mpi where the environment has it, and gloo elsewhere.
    """

    ranks: int = 2
    dtype: Dtype | None = None
    steps: int = 200
    backend: Backend | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the demo has begun. `title` says which, in a few words."""

    title: str


DemoEvent: TypeAlias = Stage | Progress


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What happened.

    Attributes:
        applied: What was patched.
        tree: The patched tree.
        ranks: Processes that trained together.
        launcher: What started them, and what they talked through.
        dtype: The dtype of the frozen weights and of autocast.
        dtype_reason: Why this one, as one clause.
        steps: Optimizer steps done.
        loss_first: The first logged loss, in nats per token.
        loss_last: The last one.
        samples_per_second: All ranks together.
        checkpoint: The folder with the tuned prefix.
        log: All that the ranks printed.
    """

    applied: Applied
    tree: Path
    ranks: int
    launcher: Launcher
    dtype: Dtype
    dtype_reason: str
    steps: int
    loss_first: float
    loss_last: float
    samples_per_second: float
    checkpoint: Path
    log: Path


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in the demo's folder."""

    root: Path

    @property
    def upstream(self) -> Path:
        return self.root / "upstream"

    @property
    def tree(self) -> Path:
        return self.root / "ChatGLM-6B"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    def all(self) -> tuple[Path, ...]:
        return (self.upstream, self.tree, self.model, self.data, self.output, self.cache, self.log)


def run_demo(folder: Path, *, options: DemoOptions, on_event: Callable[[DemoEvent], None]) -> DemoResult:
    """Make everything anew in `folder`, train, and see that the loss falls.

    Args:
        folder: A folder that does not exist, is empty, or is an earlier demo's.
        options: What the user chose.
        on_event: Called with each stage and each step.

    Raises:
        UsageError: `folder` holds something else.
        EnvironmentLacksError: Python packages, git or an MPI are missing.
        TrainingError: The training failed, or its loss did not fall.
        CommandFailedError: Another part failed.
    """
    _require_packages()
    launcher = find_launcher(options.backend)
    layout = _Layout(folder.resolve())
    _prepare(layout)
    choice = choose_dtype(options.dtype)
    on_event(Stage("clone and patch the stand-in for upstream"))
    make_upstream(layout.upstream)
    applied = clone_and_patch(layout.upstream, layout.tree, Options(launcher.backend, choice.dtype))
    on_event(Stage("build a tiny model and its data"))
    write_data(make_corpus(SEED), layout.data)
    build_model_apart(layout.model, layout.cache)
    on_event(Stage(f"tune it with {options.ranks} ranks"))
    train(_training_run(layout, options, launcher), on_event)
    state = read_state(layout.output / _OUTPUT)
    result = DemoResult(
        applied=applied,
        tree=layout.tree,
        ranks=options.ranks,
        launcher=launcher,
        dtype=choice.dtype,
        dtype_reason=choice.reason,
        steps=state.steps,
        loss_first=state.losses[0],
        loss_last=state.losses[-1],
        samples_per_second=state.samples_per_second,
        checkpoint=state.checkpoint,
        log=layout.log,
    )
    # Not `>=`: a loss that is no number has not fallen, either.
    if not result.loss_last < result.loss_first:
        raise TrainingError(
            f"the loss did not fall: {result.loss_first:.4f} at first, {result.loss_last:.4f} at last",
            hint=f"see {result.log}",
        )
    return result


def make_upstream(folder: Path) -> None:
    """Write the stand-in for upstream as a git repository of one commit, the same one everywhere."""
    source = asset_folder("templates") / "demo" / "upstream"
    # An installer compiles what it finds.
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (
        ("init", "--quiet", "--template="),
        ("add", "--all"),
        ("commit", "--quiet", "--no-gpg-sign", "--message", "The stand-in for ChatGLM-6B"),
    ):
        _git(folder, *command)


def clone_and_patch(upstream: Path, tree: Path, options: Options) -> Applied:
    """Clone the repository into `tree` and apply all patches.

    Raises:
        TrainingError: A patch does not apply.
    """
    pin = load_upstream()
    clone(str(upstream), "HEAD", tree, accept=lambda folder: require_upstream(folder, pin))
    applied = apply(tree, load_series(options))
    if applied.plan.conflicts:
        lines = [f"{edit.path}: {edit.transform}: {edit.outcome}" for edit in applied.plan.conflicts]
        raise TrainingError("patches do not apply to the stand-in for upstream:\n" + "\n".join(lines))
    return applied


def build_model_apart(folder: Path, cache: Path) -> None:
    """Build the tiny model in a process of its own, with the environment of a rank."""
    package = str(Path(__file__).parents[2])
    environment = training_environment(cache, ranks=1)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    # Its matrices are too small to share: on a busy machine threads only wait for each other.
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "glmpatch.training.tiny_model", str(folder), "--seed", str(SEED)]
    for _ in stream(command, env=environment):
        pass


def _require_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentLacksError(
            f"the demo trains, and these Python packages are missing: {', '.join(missing)}",
            hint="with Python 3.10 or 3.11: pip install 'glmpatch[train]'",
        )


def _prepare(layout: _Layout) -> None:
    """Clear away an earlier demo, and nothing else."""
    mark = layout.root / _MARK
    if layout.root.exists() and not mark.exists() and (not layout.root.is_dir() or any(layout.root.iterdir())):
        raise UsageError(
            f"{layout.root} holds something that is not a demo", hint="name a folder that does not exist yet"
        )
    layout.root.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for path in layout.all():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    layout.cache.mkdir()


def _training_run(layout: _Layout, options: DemoOptions, launcher: Launcher) -> TrainingRun:
    settings = {
        "MODEL": str(layout.model),
        "DATA": str(layout.data),
        "OUTPUT": str(layout.output),
        "STEPS": str(options.steps),
    }
    script = layout.tree / "ptuning" / "train.sh"
    return TrainingRun(script, options.ranks, launcher, settings, layout.cache, layout.log)


def _git(folder: Path, *arguments: str) -> None:
    """Run git with nothing of the user's: no configuration, no hook, no identity, no clock."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**inherited, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{role}_NAME"] = "glmpatch"
        environment[f"GIT_{role}_EMAIL"] = "glmpatch@localhost"
        environment[f"GIT_{role}_DATE"] = "2023-03-31T00:00:00+0000"
    for _ in stream(["git", *arguments], cwd=folder, env=environment):
        pass
