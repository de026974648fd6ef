"""What the backend does, asked of real ranks. The jobs check; a failure names the case."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.mpi.flavour import FlavourId
from tests.mpi_support import ALL_FLAVOURS, check_ranks

JOBS = "tests.mpi_backend.jobs"


def check_jobs(flavour: FlavourId, ranks: int, *names: str, **options: dict[str, str]) -> None:
    output = check_ranks(flavour, ranks, "-m", JOBS, *names, **options)
    for name in names:
        assert output.count(f"{name}: ") >= ranks, output


# Every MPI with two ranks, and one with more.
@pytest.mark.parametrize(("flavour", "ranks"), [*((flavour, 2) for flavour in ALL_FLAVOURS), ("intel", 3)])
def test_values(flavour: FlavourId, ranks: int) -> None:
    check_jobs(flavour, ranks, "reductions", "moves", "messages", "instructions")


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_behaviour(flavour: FlavourId) -> None:
    # A fork first: once the profiler was used, torch hangs in the exit handlers of a child.
    check_jobs(flavour, 2, "forks", "asynchrony", "mismatches", "groups")


def test_four_ranks() -> None:
    check_jobs("mpich", 4, "messages", "mismatches", "groups")


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_more_than_2_to_the_31_elements(flavour: FlavourId) -> None:
    check_jobs(flavour, 2, "large")


def test_same_exceptions_as_gloo(tmp_path: Path) -> None:
    check_jobs("intel", 2, "exceptions", env={"GLOO_FILE": str(tmp_path / "meeting")})
