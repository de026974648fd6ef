from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.commands import launch
from glmpatch.errors import ExitCode
from glmpatch.launching import plan
from glmpatch.launching.script import is_ours
from glmpatch.launching.verify import RankCheck, Verification
from glmpatch.machine import hwloc
from glmpatch.mpi import FLAVOURS, FlavourId
from tests.commands.conftest import Run
from tests.machine.machines import max9462
from tests.mpi_support import ALL_FLAVOURS, installation


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder on a machine without an MPI."""
    for flavour in FLAVOURS.values():
        monkeypatch.setattr(type(flavour), "roots", lambda _self: iter(()))
    monkeypatch.setattr(plan, "installed_backend", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mpi(flavour: FlavourId) -> list[str | Path]:
    return ["--mpi", flavour, "--mpi-root", installation(flavour).root]


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_a_script_for_this_machine(tmp_path: Path, glmpatch: Run, flavour: FlavourId) -> None:
    file = tmp_path / "launch_cpu.sh"
    result = glmpatch("launch", *mpi(flavour), "--ranks", "1", "-o", file)
    assert (result.code, result.err) == (ExitCode.DONE, "")
    lines = result.out.splitlines()
    found = installation(flavour)
    assert lines[0] == f"{file} is written"
    assert lines[1].startswith("ranks: 1, with ")
    assert lines[1].endswith(f" on this machine, started by {found.flavour.title} {found.version}")
    assert lines[2].startswith("memory ")
    assert len(lines) == 3
    assert is_ours(file.read_bytes())
    assert os.access(file, os.X_OK)


def test_standard_output_has_the_script_alone() -> None:
    command = [sys.executable, "-m", "glmpatch", "launch", *mpi("mpich"), "--topology", "max9462-cache"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert is_ours(done.stdout)
    assert b"ranks: 8, with 8 threads each, on preset max9462-cache, started by MPICH" in done.stderr
    told = done.stderr.decode().splitlines()
    assert len(told) <= 5
    assert all(len(line) <= 120 for line in told)
    closed = subprocess.run(["bash", "-c", f"{shlex.join(map(str, command))} >&-"], capture_output=True, check=True)
    assert closed.stderr == done.stderr


def test_an_mpi_that_is_not_here(elsewhere: Path, glmpatch: Run) -> None:
    assert elsewhere
    result = glmpatch("launch", "--mpi", "openmpi", "-o", "x.sh")
    assert result.code == ExitCode.ENVIRONMENT
    assert result.err.startswith("error: no Open MPI was found on this machine\nhint: glmpatch build-backend --mpi ")
    (elsewhere / "hosts").write_text("one\n")
    for options in (["--topology", "6430"], ["--slurm", "--nodes", "2"], ["--nodes", "2", "--hostfile", "hosts"]):
        result = glmpatch("launch", "--mpi", "openmpi", *options, "-o", "x.sh")
        assert result.code == ExitCode.DONE
        assert "started by Open MPI, as found at launch\n" in result.out
    result = glmpatch("launch", "--mpi", "openmpi", "--topology", "6430", "--verify")
    assert (result.code, result.out) == (ExitCode.ENVIRONMENT, "")
    assert "Open MPI is not on this machine, and only itself can verify the script" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slurm", "--hostfile", "hosts"], "--slurm and --hostfile both say which hosts"),
        (["--nodes", "2"], "--nodes 2 does not say which hosts"),
        (["--nodes", "0"], "0 is not in the range"),
        (["--mpi", "lam"], "'lam' is not one of"),
        (["--topology", "max9462"], "there is no preset and no file of that name"),
        (["--topology", "max9462-cache", "--ranks", "65"], "65 ranks"),
    ],
)
def test_what_is_asked_wrongly(elsewhere: Path, glmpatch: Run, options: list[str], message: str) -> None:
    result = glmpatch("launch", "--mpi", "mpich", *options, "-o", "x.sh")
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert message in result.err
    assert not list(elsewhere.glob("x.sh"))


def test_a_file_of_the_user_needs_force(tmp_path: Path, glmpatch: Run) -> None:
    file = tmp_path / "launch_cpu.sh"
    file.write_text("mine\n")
    options = ["launch", "--mpi", "mpich", "--topology", "6430", "-o", file]
    result = glmpatch(*options)
    assert (result.code, result.out) == (ExitCode.CONFLICT, "")
    assert "use --force to replace it" in result.err
    assert file.read_text() == "mine\n"
    assert glmpatch(*options, "--force").code == ExitCode.DONE
    assert glmpatch(*options).code == ExitCode.DONE


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_the_mpi_verifies_it(tmp_path: Path, glmpatch: Run, flavour: FlavourId) -> None:
    (tmp_path / "node.xml").write_text(hwloc.render(max9462("flat")))
    for source in ("max9462-flat", str(tmp_path / "node.xml")):
        result = glmpatch("launch", *mpi(flavour), "--topology", source, "--verify", "-o", tmp_path / "x.sh")
        assert result.code == ExitCode.DONE, result.err
        assert result.out.splitlines()[-1].endswith(" puts all 8 ranks where the script says")


def test_a_placement_that_the_mpi_does_not_follow(
    tmp_path: Path, glmpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Verification("MPICH 5", (RankCheck(0, (0, 1), (0, 1), True), RankCheck(1, (2, 3), (8,), False)))
    monkeypatch.setattr(launch, "verify", lambda *_, **__: said)
    result = glmpatch("launch", *mpi("mpich"), "--topology", "6430", "--verify", "-o", tmp_path / "x.sh")
    assert (result.code, result.out) == (ExitCode.CONFLICT, "")
    assert result.err.splitlines()[:2] == [
        "error: MPICH 5 would put these ranks on other CPUs:",
        "    rank 1: 8, and not 2-3",
    ]
    assert not (tmp_path / "x.sh").exists()
