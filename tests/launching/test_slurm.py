"""The job for Slurm, submitted to a real Slurm whose one node is this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from glmpatch.cli import run
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.mpi.flavour import FlavourId
from tests.launching.cluster_support import Job, Records, Slurm, no_backend, one_slurm
from tests.mpi_support import ALL_FLAVOURS, installation

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with one_slurm() as slurm:
        yield slurm


def submit(slurm: Slurm, records: Records, launcher: Literal["srun", "mpirun"], script: str) -> Job:
    """Submit a job of two ranks, which is written for this machine."""
    job = records.folder / "train job.sbatch"
    mpi = ["--mpi", records.flavour, "--mpi-root", str(installation(records.flavour).root)]
    assert run(["launch", *mpi, "--ranks", "2", "--slurm", "-o", str(job)]) == 0
    environment = {**no_backend(), "LAUNCHER": launcher, "GLMPATCH_RANK_MB": "1"}
    return slurm.submit("--chdir", records.ptuning, job, script, env=environment)


def check_seats(records: Records) -> None:
    """Each rank was where the placement has it."""
    placement = place(read_topology(None), ranks=2)
    ranks = records.ranks()
    assert [rank.cpus for rank in ranks] == [list(seat.cpus) for seat in placement.seats]
    assert [(rank.local_rank, rank.size, rank.threads) for rank in ranks] == [
        (seat.rank, 2, placement.threads) for seat in placement.seats
    ]


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_a_job_trains(slurm: Slurm, launcher: Literal["srun", "mpirun"], tmp_path: Path) -> None:
    records = Records(tmp_path, "intel")
    job = submit(slurm, records, launcher, records.script())
    assert job.state == "COMPLETED", job.output
    check_seats(records)
    assert records.losses[-1] < records.losses[0]


@pytest.mark.parametrize("flavour", ["openmpi", "mpich"])
def test_the_ranks_that_srun_starts_meet(slurm: Slurm, flavour: FlavourId, tmp_path: Path) -> None:
    if flavour == "openmpi" and "pmix" not in slurm.ask("srun", "--mpi=list"):
        pytest.skip("this Slurm has no PMIx")
    records = Records(tmp_path, flavour)
    job = submit(slurm, records, "srun", records.meeting_script())
    assert job.state == "COMPLETED", job.output
    check_seats(records)
    assert all(f"rank {rank} of 2 has met the other" in job.output for rank in (0, 1))


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_a_training_that_fails_fails_the_job(slurm: Slurm, flavour: FlavourId, tmp_path: Path) -> None:
    records = Records(tmp_path, flavour)
    job = submit(slurm, records, "mpirun", records.failing_script())
    assert (job.state, job.code) == ("FAILED", 7), job.output
    check_seats(records)


def test_srun_tells_the_code_of_the_rank_that_it_killed(slurm: Slurm, tmp_path: Path) -> None:
    """As it is the higher one. The other is in the output."""
    records = Records(tmp_path, "intel")
    job = submit(slurm, records, "srun", records.failing_script())
    assert (job.state, job.code) == ("FAILED", 128 + signal.SIGTERM), job.output
    assert "Exited with exit code 7" in job.output
