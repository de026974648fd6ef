"""What torch's own tests do not cover without GPUs: its ways to train, and what it builds on the collectives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi_support import check_ranks

JOBS = Path(__file__).with_name("jobs")


@pytest.mark.parametrize("debug", ["OFF", "DETAIL"])
def test_training_comes_to_what_one_process_comes_to(debug: str, tmp_path: Path) -> None:
    check_ranks("intel", 2, JOBS / "training.py", tmp_path, env={"TORCH_DISTRIBUTED_DEBUG": debug})


def test_what_torch_builds_on_the_collectives() -> None:
    check_ranks("intel", 2, JOBS / "collectives.py")
