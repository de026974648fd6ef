"""The launch script on two hosts, which are real but for their walls: names, networks and shells of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glmpatch.cli import run
from glmpatch.mpi.flavour import FlavourId
from tests.launching.cluster_support import Records, TwoHosts, demo_tree, no_backend, two_hosts, wait_for
from tests.mpi_support import ALL_FLAVOURS, installation, output_of

pytestmark = pytest.mark.train

# The model is a tiny one. UCX, which MPICH talks through, would notice that the hosts share their memory.
_SETTINGS = {"GLMPATCH_RANK_MB": "1", "UCX_TLS": "tcp,self"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


def write_launch(records: Records, hosts: TwoHosts) -> Path:
    """A launch script for one rank a host, beside a host file as people write them."""
    hostfile, launch = records.folder / "host file", records.folder / "launch cpu.sh"
    hostfile.write_text(f"# ours\n{hosts.names[0]}\n\n{hosts.names[1]}  # the other\n")
    mpi = ["--mpi", records.flavour, "--mpi-root", str(installation(records.flavour).root)]
    assert run(["launch", *mpi, "--ranks", "1", "--nodes", "2", "--hostfile", str(hostfile), "-o", str(launch)]) == 0
    return launch


@contextmanager
def launched(hosts: TwoHosts, launch: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """The launch script at work on the first host. It is in a group of processes of its own, as in a terminal."""
    with subprocess.Popen(
        hosts.on_first(launch, script),
        cwd=demo_tree() / "ChatGLM-6B" / "ptuning",
        env={**os.environ, **no_backend(), **_SETTINGS, "GLMPATCH_REMOTE_SHELL": str(hosts.remote_shell)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def outcome(process: subprocess.Popen[str], *, seconds: float = 60) -> tuple[int, str]:
    """The exit code, and all that was printed. Fails the test if it is not over by then."""
    output = output_of(process, "the launch script", seconds)
    return process.returncode, output


def check_hosts_are_empty(hosts: TwoHosts) -> None:
    wait_for(lambda: not hosts.processes(), "the last process on the hosts", seconds=10)


def check_they_met(hosts: TwoHosts, records: Records, script: str, *, over_cable: float) -> None:
    """Run a script whose two ranks exchange so many bytes: each is on a host of its own, and they use the cable."""
    before = hosts.received()
    with launched(hosts, write_launch(records, hosts), script) as process:
        code, output = outcome(process, seconds=120)
    assert code == 0, output
    ranks = records.ranks()
    assert [(rank.host, rank.network) for rank in ranks] == list(zip(hosts.names, hosts.networks(), strict=True))
    assert [(rank.local_rank, rank.size) for rank in ranks] == [(0, 2), (0, 2)]
    assert min(after - old for after, old in zip(hosts.received(), before, strict=True)) > over_cable
    check_hosts_are_empty(hosts)


@pytest.mark.parametrize("flavour", ["intel", "openmpi"])
def test_the_ranks_of_two_hosts_train_together(hosts: TwoHosts, flavour: FlavourId, tmp_path: Path) -> None:
    records = Records(tmp_path, flavour)
    # Half of the gradients of ten steps, for a prefix of 32 x 2 x 2 x 64 numbers.
    check_they_met(hosts, records, records.script(), over_cable=10 * 32 * 2 * 2 * 64 * 4 / 2)
    assert records.losses[-1] < records.losses[0]


def test_the_ranks_of_two_hosts_meet_with_mpich(hosts: TwoHosts, tmp_path: Path) -> None:
    records = Records(tmp_path, "mpich")
    check_they_met(hosts, records, records.meeting_script(), over_cable=2**19)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_a_failure_on_the_other_host_ends_all_and_tells_its_code(
    hosts: TwoHosts, flavour: FlavourId, tmp_path: Path
) -> None:
    records = Records(tmp_path, flavour)
    script = records.failing_script()
    with launched(hosts, write_launch(records, hosts), script) as process:
        code, output = outcome(process)
    assert code == 7, output
    assert len(records.ranks()) == 2
    check_hosts_are_empty(hosts)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_an_interrupt_ends_the_ranks_on_both_hosts(hosts: TwoHosts, flavour: FlavourId, tmp_path: Path) -> None:
    records = Records(tmp_path, flavour)
    script = records.script("sleep 300 & sleep 300")
    with launched(hosts, write_launch(records, hosts), script) as process:
        wait_for(lambda: len(records.ranks()) == 2 or process.poll() is not None, "both ranks")
        os.killpg(process.pid, signal.SIGINT)
        code, output = outcome(process)
    assert code != 0, output
    check_hosts_are_empty(hosts)
