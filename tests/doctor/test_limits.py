from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.doctor.limits import Session, ask_session, cpus, memory_policy, shared_memory, ulimits
from glmpatch.doctor.row import Row, State
from glmpatch.machine.placement import place
from tests.doctor.support import apart, is_fine
from tests.machine.machines import allow, machine, max9462
from tests.machine.sysfs_tree import write

GB = 10**9
UNLIMITED = dict.fromkeys(("nofile", "nproc", "memlock", "stack", "as"), -1)
SESSION = Session(64 * GB, UNLIMITED, UNLIMITED, "", user=1000, numactl=True)
PLACEMENT = place(max9462())
ASK = f"{sys.executable} -c 'from glmpatch.doctor.limits import ask_session; print({{}})'"


def limited(tmp_path: Path, session: Session = SESSION, **limits: int) -> Row:
    changed = replace(session, limits={**session.limits, **limits})
    return ulimits(tmp_path, changed, PLACEMENT, 16 * GB)


def test_shared_memory_is_measured_by_the_ranks(tmp_path: Path) -> None:
    docker = replace(SESSION, shm=64 * 2**20)
    assert is_fine(shared_memory(tmp_path, docker, 8))
    row = shared_memory(tmp_path, docker, 16)
    assert row.state is State.FAIL
    assert row.evidence.startswith("67 MB free in /dev/shm, 16 ranks can need 96 MB")
    assert row.mend.startswith("sudo mount")
    write(tmp_path, ".dockerenv", "")
    assert shared_memory(tmp_path, docker, 16).mend.startswith("docker run --shm-size=")
    assert shared_memory(tmp_path, replace(SESSION, shm=None), 1).state is State.FAIL


def test_shared_memory_is_mended(tmp_path: Path) -> None:
    mend = shared_memory(tmp_path, replace(SESSION, shm=0), 1).mend.removeprefix("sudo ")
    shown = ASK.format("ask_session().shm")
    before, after = apart(f"mount -t tmpfs -o size=4m tmpfs /dev/shm; {shown}; {mend}; {shown}", "--mount").split()
    assert not is_fine(shared_memory(tmp_path, replace(SESSION, shm=int(before)), 1))
    assert is_fine(shared_memory(tmp_path, replace(SESSION, shm=int(after)), 1))


def test_limits_that_end_the_training(tmp_path: Path) -> None:
    assert is_fine(limited(tmp_path, nofile=1024, memlock=8 * 2**20, stack=8 * 2**20, nproc=10**5))
    small = replace(SESSION, limits={**UNLIMITED, "as": 8 * GB})
    assert "16.0 GB of address space" in limited(tmp_path, small).evidence
    row = limited(tmp_path, nproc=100)
    assert row.state is State.FAIL
    assert "the ranks start 320 threads" in row.evidence
    assert is_fine(limited(tmp_path, replace(SESSION, user=0), nproc=100))
    for path in ("sys/fs/cgroup/pids.max", "sys/fs/cgroup/pids/pids.max"):
        write(tmp_path, path, "100")
        assert limited(tmp_path).state is State.FAIL
        write(tmp_path, path, "max")
        assert is_fine(limited(tmp_path))
        (tmp_path / path).unlink()


def test_locked_memory_matters_with_an_adapter(tmp_path: Path) -> None:
    locked = 8 * 2**20
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    assert is_fine(limited(tmp_path, memlock=locked))
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir()
    assert limited(tmp_path, memlock=locked).state is State.WARN


@pytest.mark.parametrize("hard", [4096, 64])
def test_limits_are_mended(tmp_path: Path, hard: int) -> None:
    row = limited(tmp_path, replace(SESSION, hard={**UNLIMITED, "nofile": hard}), nofile=64)
    assert row.state is State.WARN
    assert ("prlimit" in row.mend) == (hard == 64)
    shown = ASK.format('ask_session().limits["nofile"], ask_session().hard["nofile"]')
    script = f"ulimit -Sn 64; ulimit -Hn {hard}; {shown}; {row.mend.removeprefix('sudo ')}; {shown}"
    done = subprocess.run(["bash", "-ec", script], check=False, capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("raising a hard limit is not permitted here")
    assert done.stdout.splitlines() == [f"64 {hard}", f"1024 {max(hard, 1024)}"]


def test_limits_without_a_number_are_mended(tmp_path: Path) -> None:
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    assert limited(tmp_path, memlock=2**20).mend == "ulimit -Sl unlimited"
    bound = replace(SESSION, hard={**UNLIMITED, "memlock": 2**20})
    assert limited(tmp_path, bound, memlock=2**20).mend == "sudo prlimit --pid $$ --memlock=unlimited"
    write(tmp_path, ".dockerenv", "")
    assert limited(tmp_path, bound, memlock=2**20).mend == "docker run --ulimit memlock=-1 ..."


def test_memory_policies_matter_for_hbm() -> None:
    refused, bare = replace(SESSION, policy_error="EPERM"), replace(SESSION, numactl=False)
    assert is_fine(memory_policy(refused, machine(packages=1, snc=1)))
    assert is_fine(memory_policy(refused, max9462("cache")))
    row = memory_policy(refused, max9462("flat"))
    assert row.state is State.WARN
    assert "EPERM" in row.evidence
    assert memory_policy(bare, max9462("flat")).mend == "sudo apt-get install numactl"
    assert is_fine(memory_policy(bare, max9462("cache")))
    assert is_fine(memory_policy(SESSION, max9462("flat")))
    assert "unknown" in memory_policy(replace(SESSION, policy_error=None), max9462("flat")).evidence


def test_this_session_is_asked() -> None:
    session = ask_session()
    assert session.shm
    assert set(session.limits) == set(UNLIMITED)
    assert session.policy_error in {None, "", "EPERM", "ENOSYS"}


def test_cpus_of_a_cpuset() -> None:
    quota = replace(allow(machine(packages=1, snc=2, cores=4), range(2, 6)), cpu_quota=1.5)
    row = cpus(quota)
    assert is_fine(row)
    assert row.evidence == "2-5: 4 of 16 CPUs, on 4 of 8 cores; the control group grants the time of 1.5 CPUs"
