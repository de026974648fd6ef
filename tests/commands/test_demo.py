from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch.cli import run
from glmpatch.patching.apply import Applied
from glmpatch.patching.plan import Plan
from glmpatch.training.demo import DemoEvent, DemoOptions, DemoResult, Stage
from glmpatch.training.launcher import Torchrun
from glmpatch.training.progress import Progress
from glmpatch.training.run import TrainingError

SEEN: list[DemoOptions] = []


def run_demo(folder: Path, *, options: DemoOptions, on_event: Callable[[DemoEvent], None]) -> DemoResult:
    """What the demo tells, without the training."""
    SEEN.append(options)
    on_event(Stage("tune it"))
    for step in range(1, options.steps + 1):
        on_event(Progress(step, options.steps, 8.0 - step / 10, seconds=step))
    return DemoResult(
        applied=Applied(Plan((), {})),
        tree=folder / "tree",
        ranks=options.ranks,
        launcher=Torchrun(),
        dtype="fp32",
        dtype_reason="this CPU has neither AMX nor AVX512-BF16",
        steps=options.steps,
        loss_first=8.0,
        loss_last=4.0,
        samples_per_second=12.5,
        checkpoint=folder / "checkpoint-20",
        log=folder / "train.log",
    )


@pytest.fixture(autouse=True)
def _without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glmpatch.commands.demo.run_demo", run_demo)


def test_it_tells_what_happened_and_what_to_type(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["demo", str(tmp_path), "--steps", "20", "--ranks", "3"]) == 0
    assert SEEN[-1] == DemoOptions(ranks=3, dtype=None, steps=20, backend=None)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["* tune it", "  step 4 of 20  loss 7.600", "  step 8 of 20  loss 7.200"]
    assert "loss        8.0000 at first, 4.0000 after 20 steps" in lines
    assert "dtype       fp32: this CPU has neither AMX nor AVX512-BF16" in lines
    assert lines[-1].endswith("torchrun --no-python --nproc-per-node 3 bash train.sh")


def test_json_is_one_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["demo", str(tmp_path), "--steps", "10", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["checkpoint"] == str(tmp_path / "checkpoint-20")
    assert "tune it" in captured.err


def test_a_failed_training_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> DemoResult:
        raise TrainingError("the loss did not fall", hint="see the log")

    monkeypatch.setattr("glmpatch.commands.demo.run_demo", fail)
    assert run(["demo", str(tmp_path)]) == 1
    assert "the loss did not fall" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--steps", "1"], ["--ranks", "0"], ["--dtype", "fp16"]])
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    assert run(["demo", str(tmp_path), *arguments]) == 2
