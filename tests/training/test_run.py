from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from glmpatch.errors import ExitCode
from glmpatch.training.launcher import Torchrun
from glmpatch.training.progress import Progress
from glmpatch.training.run import TrainingError, TrainingRun, read_state, train, training_environment

BAR = "echo ' 50%|█     | 1/2 [00:00<00:00]'"


def make_run(folder: Path, script: str) -> TrainingRun:
    """A run of two ranks of a script."""
    pytest.importorskip("torch")
    (folder / "work").mkdir()
    (folder / "work" / "train.sh").write_text(script)
    return TrainingRun(
        folder / "work" / "train.sh", 2, Torchrun(), {"OUT": str(folder)}, folder / "cache", folder / "train.log"
    )


def alive(pid: int) -> bool:
    """Whether a process runs. One that has ended and that nobody has asked for yet (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.train
def test_every_rank_runs_the_script_with_this_interpreter(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        'python3 -c "import sys; print(sys.prefix, sys.version)" > "$OUT/$RANK.txt"\n'
        'echo "$WORLD_SIZE $LOCAL_RANK $OMP_NUM_THREADS $MASTER_ADDR" >> "$OUT/$RANK.txt"\npwd\n' + BAR + "\n",
    )
    told: list[Progress] = []
    train(run, told.append)
    threads = training_environment(run.cache, 2)["OMP_NUM_THREADS"]
    for rank in (0, 1):
        interpreter, settings = (tmp_path / f"{rank}.txt").read_text().splitlines()
        assert interpreter == f"{sys.prefix} {sys.version}"
        assert settings.split() == ["2", str(rank), threads, "127.0.0.1"]
    assert [(progress.step, progress.max_steps) for progress in told] == [(1, 2)]
    assert str(tmp_path / "work") in run.log.read_text()


@pytest.mark.train
def test_a_failure_shows_the_last_words_of_the_rank_and_the_log(tmp_path: Path) -> None:
    run = make_run(tmp_path, f"{BAR}\necho 'ValueError: no such data' >&2\nexit 7\n")
    with pytest.raises(TrainingError) as caught:
        train(run, lambda _: None)
    assert "ValueError: no such data" in caught.value.message
    assert "torch/distributed" not in caught.value.message
    assert "50%" not in caught.value.message
    assert str(run.log) in caught.value.hint
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert "ChildFailedError" in run.log.read_text()


@pytest.mark.train
def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        f'sleep 300 &\necho $! > "$OUT/$RANK.child"\necho $$ > "$OUT/$RANK.shell"\nsleep 1\n{BAR}\nsleep 300\n',
    )

    def interrupt(_: Progress) -> None:
        if len(list(tmp_path.glob("*.shell"))) == run.ranks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, interrupt)
    pids = [int(file.read_text()) for file in (*tmp_path.glob("*.child"), *tmp_path.glob("*.shell"))]
    assert len(pids) == 4
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_the_caches_of_the_user_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_DATASETS_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = training_environment(tmp_path, ranks=1000)
    assert "the user's" not in environment.values()
    assert environment["HF_HOME"] == str(tmp_path / "huggingface")
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["LANG"] == "C.UTF-8"


HISTORY = [
    {"loss": 7.5, "step": 5},
    {"loss": 2.5, "step": 10},
    {"train_runtime": 2.0, "train_samples_per_second": 80.0, "train_loss": 5.0},
]


def write_state(folder: Path, history: list[dict[str, float]], checkpoints: tuple[str, ...]) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 10, "log_history": history}))
    for name in checkpoints:
        (folder / name).mkdir()


def test_the_record_of_the_trainer_is_read(tmp_path: Path) -> None:
    write_state(tmp_path, HISTORY, ("checkpoint-5", "checkpoint-10"))
    state = read_state(tmp_path)
    assert state.steps == 10
    assert state.losses == (7.5, 2.5)
    assert state.samples_per_second == 80.0
    assert state.checkpoint == tmp_path / "checkpoint-10"


@pytest.mark.parametrize(
    ("history", "checkpoints"), [(HISTORY[2:], ("checkpoint-5",)), (HISTORY[:2], ("checkpoint-5",)), (HISTORY, ())]
)
def test_a_record_with_a_hole_is_an_error(
    tmp_path: Path, history: list[dict[str, float]], checkpoints: tuple[str, ...]
) -> None:
    write_state(tmp_path, history, checkpoints)
    with pytest.raises(TrainingError, match="without a logged loss or a checkpoint"):
        read_state(tmp_path)


@pytest.mark.parametrize("text", [None, "{", ""])
def test_no_record_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(TrainingError, match="no record"):
        read_state(tmp_path)
