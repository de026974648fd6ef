"""How jobs end: as failed and soon where a rank fails, and else without a word."""

from __future__ import annotations

import time
from itertools import cycle

import pytest

from glmpatch.mpi.flavour import FlavourId
from tests.mpi_backend.jobs.endings import ENDINGS
from tests.mpi_backend.jobs.faults import FAULTS
from tests.mpi_support import ALL_FLAVOURS, Finished, backend_folder, installation, run_ranks

SOON = 30.0  # seconds
# What the user learns. Of the others, that the job failed, and whatever the launcher says.
TOLD = {
    "raise, others in all_reduce": ["ValueError: the fault"],
    "raise with work under way": ["ValueError: the fault"],
    "timeout of all_reduce": ["mpi:all_reduce: Timed out after 1000 ms", "ranks 0, 1"],
    "timeout of recv": ["mpi:recv: Timed out after 1000 ms", "ranks 0, 1"],
    "timeout of new_group": ["group of ranks 0, 1: Timed out after 1000 ms", "not here: rank 1"],
    "timeout of a group": ["mpi:all_reduce: Timed out after 1000 ms"],
    "timeout that is caught": ["again: mpi:all_reduce: this group can't go on", "ended as failed"],
    "timeout while sending": ["wrong: 0"],
    "late for a timeout": ["mpi:all_reduce: Timed out after 1000 ms: rank 1 ", "within MPI"],
}
CORE = ("raise, others in all_reduce", "killed", "timeout of all_reduce")
# Each with one MPI, in turn; those that matter most with all.
FAULTS_BY_FLAVOUR = [
    (flavour, fault)
    for fault, turn in zip(FAULTS, cycle(ALL_FLAVOURS))
    for flavour in (ALL_FLAVOURS if fault in CORE else [turn])
]


@pytest.mark.parametrize(("flavour", "fault"), FAULTS_BY_FLAVOUR)
def test_fault_ends_the_job(flavour: FlavourId, fault: str) -> None:
    backend_folder(flavour)  # to build it is not part of it
    start = time.monotonic()
    finished = run_ranks(flavour, 2, "-m", "tests.mpi_backend.jobs.faults", fault, timeout=SOON)
    assert finished.code != 0, finished.output
    assert time.monotonic() - start < SOON
    for part in TOLD.get(fault, []):
        assert part in finished.output, finished.output


@pytest.mark.parametrize(("ending", "flavour"), list(zip(ENDINGS, cycle(ALL_FLAVOURS))))
def test_ending_says_nothing(ending: str, flavour: FlavourId) -> None:
    finished = run_ranks(flavour, 2, "-m", "tests.mpi_backend.jobs.endings", ending, timeout=60)
    assert (finished.code, finished.output) == (0, "")


@pytest.mark.parametrize(
    ("flavour", "arguments"),
    [("intel", ("multiple",)), ("openmpi", ("multiple", "destroy")), ("mpich", ("multiple",))],
)
def test_mpi4py_starts_and_ends_mpi(flavour: FlavourId, arguments: tuple[str, ...]) -> None:
    """Each MPI in one way, each way with one MPI; `make conformance` asks for all ways of each."""
    check_mpi4py(flavour, *arguments)


@pytest.mark.conformance
@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
@pytest.mark.parametrize("arguments", [("multiple",), ("multiple", "destroy")])
def test_mpi4py_starts_and_ends_every_mpi(flavour: FlavourId, arguments: tuple[str, ...]) -> None:
    """Takes half a minute, so `make test` runs a part of it alone."""
    check_mpi4py(flavour, *arguments)


def check_mpi4py(flavour: FlavourId, *arguments: str) -> None:
    finished = run_with_mpi4py(flavour, *arguments)
    assert (finished.code, finished.output) == (0, "")


def test_what_mpi4py_started_for_too_few_threads_is_refused() -> None:
    finished = run_with_mpi4py("intel", "serialized")
    assert finished.code != 0
    assert "leave mpi4py.rc.thread_level" in finished.output


def run_with_mpi4py(flavour: FlavourId, *arguments: str) -> Finished:
    library, *_ = sorted((installation(flavour).root / "lib").glob("libmpi.so.*"))
    named = {"MPI4PY_LIBMPI": str(library)}  # else it may take one that is in this environment
    return run_ranks(flavour, 2, "-m", "tests.mpi_backend.jobs.mpi4py_first", *arguments, env=named)
