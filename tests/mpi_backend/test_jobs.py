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


@pytest.mark.parametrize(("flavour", "ranks"), [("intel", 3), ("openmpi", 2), ("mpich", 2)])
def test_values(flavour: FlavourId, ranks: int) -> None:
    """Every MPI, one of them with more than two ranks. `make conformance` runs that one with two, as well."""
    check_jobs(flavour, ranks, "reductions", "moves", "messages")


def test_instructions() -> None:
    """With one MPI: all of them call the same reductions of ours. `make conformance` asks the others, too."""
    check_jobs("intel", 2, "instructions")


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_behaviour(flavour: FlavourId) -> None:
    # A fork first: once the profiler was used, torch hangs in the exit handlers of a child.
    check_jobs(flavour, 2, "forks", "asynchrony", "mismatches", "groups")


def test_four_ranks() -> None:
    check_jobs("mpich", 4, "messages", "mismatches", "groups")


def test_more_than_2_to_the_31_elements() -> None:
    """With one MPI: what goes to any of them is cut into the same chunks. `make conformance` asks the others, too."""
    check_jobs("intel", 2, "large")


@pytest.mark.conformance
@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
@pytest.mark.parametrize("names", [("reductions", "moves", "messages", "instructions"), ("large",)])
def test_every_mpi_with_two_ranks(flavour: FlavourId, names: tuple[str, ...]) -> None:
    """Takes minutes, so `make test` runs a part of it alone."""
    check_jobs(flavour, 2, *names)


def test_same_exceptions_as_gloo(tmp_path: Path) -> None:
    check_jobs("intel", 2, "exceptions", env={"GLOO_FILE": str(tmp_path / "meeting")})
