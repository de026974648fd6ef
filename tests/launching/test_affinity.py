"""Real ranks on this machine, which say themselves where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.machine.placement import Placement, place
from glmpatch.machine.read import read_topology
from glmpatch.mpi.flavour import Installation
from tests.mpi.installations import NAMES, find

_CPUSETS = Path("/sys/fs/cgroup/cpuset") if Path("/sys/fs/cgroup/cpuset").is_dir() else Path("/sys/fs/cgroup")
# One write a line: the lines of two ranks must not mix.
_WHERE = 'import os, sys; os.write(1, f"{os.environ[sys.argv[1]]} {sorted(os.sched_getaffinity(0))}\\n".encode())'


@pytest.fixture(params=NAMES)
def mpi(request: pytest.FixtureRequest) -> Installation:
    return find(request.param)


def _backwards(placement: Placement) -> Placement:
    """The same with the last cores first: where no MPI puts ranks by itself."""
    seats = reversed(placement.seats)
    return replace(placement, seats=tuple(replace(seat, rank=rank) for rank, seat in enumerate(seats)))


def _affinities(mpi: Installation, placement: Placement, folder: Path) -> list[str]:
    """What each rank says of its CPUs, by rank."""
    pinning = mpi.flavour.pinning(read_topology(None), placement, mpi.version)
    rankfile = folder / "rankfile"
    rankfile.write_text(pinning.rankfile())
    options = [*pinning.words(str(rankfile)), "-n", str(len(placement.seats))]
    done = subprocess.run(
        [str(mpi.launcher), *options, sys.executable, "-c", _WHERE, mpi.flavour.local_rank_variable],
        env={**mpi.environment(os.environ), **pinning.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(done.stdout.splitlines())


def _said(placement: Placement, mpi: Installation) -> list[str]:
    """What they should say: Open MPI gives them all hardware threads of their cores."""
    whole = mpi.flavour.id == "openmpi"
    cpus = (sorted(cpu for core in seat.cores for cpu in core.cpus) if whole else seat.cpus for seat in placement.seats)
    return sorted(f"{rank} {list(each)}" for rank, each in enumerate(cpus))


def test_each_rank_is_where_the_placement_says(mpi: Installation, tmp_path: Path) -> None:
    topology = read_topology(None)
    most = len(topology.usable_cores)
    for ranks in sorted({1, most // 2 or 1, most}):
        placement = _backwards(place(topology, ranks=ranks))
        assert _affinities(mpi, placement, tmp_path) == _said(placement, mpi)


@contextmanager
def _affinity(cpus: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _last_core() -> set[int]:
    cores = read_topology(None).usable_cores
    if len(cores) == 1:
        pytest.skip("this machine has one core")
    return set(cores[-1].cpus)


def test_a_rank_stays_on_the_cpus_that_its_parent_was_left_with(mpi: Installation, tmp_path: Path) -> None:
    with _affinity(_last_core()):
        placement = place(read_topology(None))
        assert _affinities(mpi, placement, tmp_path) == _said(placement, mpi)


@contextmanager
def _control_group(cpus: set[int]) -> Iterator[None]:
    group, home = _CPUSETS / f"glmpatch-test-{os.getpid()}", _CPUSETS / _own_group()
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        try:
            (group / "cpuset.cpus").write_text(",".join(map(str, cpus)))
            if (group / "cpuset.mems").read_text() == "\n":
                (group / "cpuset.mems").write_text((_CPUSETS / "cpuset.mems").read_text())
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            pytest.skip(f"no control group of CPUs can be made: {error}")
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def _own_group() -> str:
    """The control group that we are in, as a path below that of all."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    ours = next(line for line in lines if line.split(":")[1] in {"cpuset", ""})
    return ours.rpartition(":")[2].lstrip("/")


def test_a_rank_stays_on_the_cpus_that_its_control_group_allows(mpi: Installation, tmp_path: Path) -> None:
    """hwloc, which counts CPUs for Open MPI, leaves out all others by itself."""
    with _control_group(_last_core()):
        placement = place(read_topology(None))
        assert _affinities(mpi, placement, tmp_path) == _said(placement, mpi)
