from __future__ import annotations

import math

import pytest

from glmpatch.training.progress import Progress, ProgressParser, is_noise

BAR = " 12%|█▎        | 25/200 [00:01<00:07, 23.1it/s]"
PREPARING = "Map: 100%|██████████| 480/480 [00:00<00:00, 10438.14 examples/s]"
LOSS = "{'loss': 3.5843, 'learning_rate': 0.009, 'epoch': 5.5}"
SUMMARY = "{'train_runtime': 2.3, 'train_samples_per_second': 401.2, 'train_loss': 0.178, 'epoch': 2.0}"


def test_steps_and_losses_are_put_together() -> None:
    parser = ProgressParser()
    assert parser.feed(BAR, seconds=1.0) == Progress(25, 200, None, 1.0)
    assert parser.feed(LOSS, seconds=2.0) == Progress(25, 200, 3.5843, 2.0)
    assert parser.feed(BAR.replace("25/", "26/"), seconds=3.0) == Progress(26, 200, 3.5843, 3.0)


@pytest.mark.parametrize("line", [PREPARING, SUMMARY, "", "Saving PrefixEncoder", "the loss is 3", "'loss': 3"])
def test_other_lines_tell_nothing(line: str) -> None:
    assert ProgressParser().feed(line, seconds=0.0) is None


def test_a_bar_that_is_drawn_again_tells_nothing() -> None:
    parser = ProgressParser()
    assert parser.feed(BAR, seconds=1.0) is not None
    assert parser.feed(BAR, seconds=2.0) is None


def test_a_loss_behind_a_bar_on_one_line_is_seen() -> None:
    progress = ProgressParser().feed(f"      {LOSS}", seconds=0.0)
    assert progress is not None
    assert progress.loss == 3.5843


@pytest.mark.parametrize("line", [BAR + LOSS, f"{LOSS}{BAR}", f"{LOSS}{LOSS}{BAR}"])
def test_what_mpirun_glues_together_is_read_apart(line: str) -> None:
    assert ProgressParser().feed(line, seconds=0.0) == Progress(25, 200, 3.5843, 0.0)


def test_a_loss_that_is_no_number_is_told_as_such() -> None:
    for text in ("nan", "tensor(1.)"):
        progress = ProgressParser().feed(f"{{'loss': {text}, 'epoch': 1}}", seconds=0.0)
        assert progress is not None
        assert progress.loss is not None
        assert math.isnan(progress.loss)


def test_noise_is_bars_and_empty_lines() -> None:
    assert is_noise(BAR)
    assert is_noise(PREPARING)
    assert is_noise("  ")
    assert not is_noise("RuntimeError: at 100% | of memory")
