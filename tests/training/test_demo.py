from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmpatch.assets import asset_folder
from glmpatch.checkout import Checkout
from glmpatch.errors import ExitCode, UsageError
from glmpatch.patching.model import Options
from glmpatch.patching.plan import State
from glmpatch.process import CommandFailedError, stream
from glmpatch.training import demo as demo_module
from glmpatch.training.corpus import make_corpus, write_data
from glmpatch.training.demo import (
    SEED,
    DemoOptions,
    DemoResult,
    build_model_apart,
    clone_and_patch,
    make_upstream,
    run_demo,
)
from glmpatch.training.progress import Progress
from glmpatch.training.run import TrainingError, TrainingRun, TrainingState, train, training_environment

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
SCRIPTS = sorted((asset_folder("templates") / "demo" / "upstream").glob("ptuning/*.sh"))


def ignore(_: object) -> None:
    """Listen to no event."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_of_the_stand_in_pass_shellcheck(script: Path) -> None:
    assert list(stream([str(SHELLCHECK), "--shell=bash", str(script)])) == []
    # As upstream ships them: no program, and nothing that says which shell.
    assert not script.stat().st_mode & 0o111
    assert not script.read_bytes().startswith(b"#!")


def test_the_stand_in_is_the_same_commit_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = set()
    for name, variables in (("one", {}), ("two", {"GIT_AUTHOR_NAME": "me", "GIT_DIR": "/nowhere", "HOME": "/nowhere"})):
        with monkeypatch.context() as patch:
            for key, value in variables.items():
                patch.setenv(key, value)
            make_upstream(tmp_path / name)
        heads.add(Checkout(tmp_path / name).head)
    assert len(heads) == 1


def test_what_an_installer_adds_is_not_part_of_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(asset_folder("templates"), tmp_path / "templates")
    compiled = tmp_path / "templates" / "demo" / "upstream" / "__pycache__"
    compiled.mkdir()
    (compiled / "api.cpython-311.pyc").touch()
    monkeypatch.setattr(demo_module, "asset_folder", lambda name: tmp_path / name)
    make_upstream(tmp_path / "upstream")
    assert not any("__pycache__" in path for path in Checkout(tmp_path / "upstream").tracked())


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_patch_changes_the_stand_in(tmp_path: Path, dtype: str) -> None:
    make_upstream(tmp_path / "upstream")
    options = Options(backend="gloo", dtype="bf16" if dtype == "bf16" else "fp32")
    applied = clone_and_patch(tmp_path / "upstream", tmp_path / "tree", options)
    states = {result.patch.id: result.state for result in applied.plan.patches}
    # An expectation, which changes nothing.
    assert states.pop("cpu-autocast") is State.APPLIED
    assert set(states.values()) <= {State.PENDING, State.PARTIAL}
    assert set(applied.commits) == set(states)


@pytest.mark.train
def test_a_folder_that_is_no_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a demo"):
        run_demo(tmp_path, options=DemoOptions(), on_event=ignore)
    with pytest.raises(UsageError, match="not a demo"):
        run_demo(tmp_path / "thesis.txt", options=DemoOptions(), on_event=ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.train
def test_the_demo_trains_and_its_loss_falls(demo: tuple[DemoResult, list[Progress]]) -> None:
    result, told = demo
    assert result.steps == 40
    assert result.ranks == 2
    assert result.loss_last < result.loss_first * 2 / 3
    assert result.samples_per_second > 0
    assert result.dtype_reason
    assert (told[-1].step, told[-1].max_steps) == (40, 40)
    losses = [progress.loss for progress in told if progress.loss is not None]
    assert (losses[0], losses[-1]) == (result.loss_first, result.loss_last)
    assert [progress.step for progress in told] == sorted(progress.step for progress in told)


@pytest.mark.train
def test_the_checkpoint_holds_the_prefix_alone(torch: Any, demo: tuple[DemoResult, list[Progress]]) -> None:
    weights = torch.load(demo[0].checkpoint / "pytorch_model.bin", weights_only=True)
    assert set(weights) == {"transformer.prefix_encoder.embedding.weight"}
    assert weights["transformer.prefix_encoder.embedding.weight"].dtype == torch.float32


@pytest.mark.train
@pytest.mark.parametrize(
    ("script", "output"),
    [("evaluate.sh", "advert-pt-32-5e-2/predict_results.json"), ("train_chat.sh", "chat-pt-32-5e-2")],
)
def test_the_other_scripts_of_the_stand_in_run_too(
    demo: tuple[DemoResult, list[Progress]], script: str, output: str
) -> None:
    result, _ = demo
    root = result.tree.parent
    settings = {name: str(root / name.lower()) for name in ("MODEL", "DATA", "OUTPUT")}
    steps = {"STEPS": "40" if script == "evaluate.sh" else "5"}
    run = TrainingRun(
        result.tree / "ptuning" / script,
        2,
        result.launcher,
        {**settings, **steps},
        root / "cache",
        root / f"{script}.log",
    )
    train(run, ignore)
    assert (root / "output" / output).exists()


@pytest.mark.train
def test_a_second_demo_starts_afresh_and_keeps_what_is_not_its_own(
    demo: tuple[DemoResult, list[Progress]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = demo
    root = result.tree.parent
    (root / "notes.txt").write_text("mine")
    (root / "data" / "stale.json").write_text("")
    # What follows is tested above; here it must only not take the time.
    monkeypatch.setattr(demo_module, "build_model_apart", lambda *_: None)
    monkeypatch.setattr(demo_module, "train", lambda *_: None)
    state = TrainingState(40, (5.0, 5.0), 1.0, result.checkpoint)
    monkeypatch.setattr(demo_module, "read_state", lambda _: state)
    with pytest.raises(TrainingError, match="did not fall") as caught:
        run_demo(root, options=DemoOptions(), on_event=ignore)
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert (root / "notes.txt").read_text() == "mine"
    assert not (root / "data" / "stale.json").exists()
    monkeypatch.setattr(demo_module, "read_state", lambda _: replace(state, losses=(5.0, float("nan"))))
    with pytest.raises(TrainingError, match="did not fall"):
        run_demo(root, options=DemoOptions(), on_event=ignore)


@pytest.mark.train
def test_without_the_patches_it_fails_as_upstream_does(torch: Any, tmp_path: Path, model_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    make_upstream(tmp_path / "upstream")
    write_data(make_corpus(SEED), tmp_path / "data")
    environment = training_environment(tmp_path / "cache", ranks=1)
    environment |= {"MODEL": str(model_folder), "DATA": str(tmp_path / "data"), "OUTPUT": str(tmp_path / "output")}
    with pytest.raises(CommandFailedError) as caught:
        list(stream(["bash", "train.sh"], cwd=tmp_path / "upstream" / "ptuning", env=environment))
    assert "CUDA" in caught.value.tail or "NVIDIA" in caught.value.tail


@pytest.mark.train
def test_a_model_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model").write_text("a file is in the way")
    with pytest.raises(CommandFailedError, match="FileExistsError"):
        build_model_apart(tmp_path / "model", tmp_path)
