"""The real machine, the real PyTorch and the real backend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from glmpatch.building.record import BackendInfo, installed_backend
from glmpatch.doctor.examine import examine
from glmpatch.doctor.row import State
from glmpatch.doctor.torch_report import ask_torch
from glmpatch.doctor.torch_rows import backend
from glmpatch.errors import ExitCode
from tests.doctor.support import is_fine
from tests.machine.machines import max9462
from tests.machine.sysfs_tree import write, write_tree
from tests.mpi_support import backend_folder

IDS = (
    *("python", "packages", "torch", "backend", "mpi", "bf16", "cpus", "numa", "hbm", "memory", "swap", "thp"),
    *("numa-balancing", "governor", "shm", "ulimits", "memory-policy", "hostname", "slurm", "libraries"),
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a backend for Intel MPI."""
    if find_spec("torch") is None:
        pytest.skip("needs torch")
    folder = shutil.copytree(backend_folder("intel"), tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    return folder


def test_a_machine_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    write_tree(tmp_path, max9462("flat"))
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]")
    write(tmp_path, "proc/sys/kernel/numa_balancing", "1")
    rows = {row.id: row for row in examine(root=tmp_path)}
    assert tuple(rows) == IDS
    wrong = {row.id for row in rows.values() if row.state is not State.PASS}
    assert {"torch", "backend", "hbm", "thp", "numa-balancing"} <= wrong
    assert wrong.isdisjoint({"python", "cpus", "numa", "memory", "swap", "governor", "slurm", "libraries"})
    assert "8 ranks of 8 threads" in rows["numa"].evidence


def test_the_mends_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    write_tree(tmp_path, max9462("flat"))
    write(tmp_path, "proc/sys/kernel/numa_balancing", "1")
    (mend,) = (row.mend for row in examine(root=tmp_path) if row.id == "numa-balancing")
    assert mend == ("sysctl" if os.geteuid() == 0 else "sudo sysctl") + " kernel.numa_balancing=0"


def test_ctrl_c_does_not_wait_for_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, time\nopen(os.environ['PID'], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    pid = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PID": str(pid)}
    command = [sys.executable, "-m", "glmpatch", "doctor"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not pid.exists() or not pid.read_text():
                assert time.monotonic() < end
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == ExitCode.INTERRUPTED
        finally:
            process.kill()
    assert not Path("/proc", pid.read_text()).exists()


def installed() -> BackendInfo:
    built = installed_backend()
    assert built is not None
    return built


def test_this_machine(site: Path) -> None:
    assert site.is_dir()
    rows = {row.id: row for row in examine()}
    assert tuple(rows) == IDS
    assert is_fine(rows["torch"])
    assert is_fine(rows["backend"])
    assert f"Intel MPI {installed().mpi_version}" in rows["mpi"].evidence
    assert "for a quarter of a layer" in rows["bf16"].evidence
    assert all(row.mend for row in rows.values() if row.state is not State.PASS)


def test_a_backend_that_does_not_load_and_a_cpu_without_bf16(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = installed()
    (library,) = site.glob("glmpatch_mpi/_C*.so")
    library.write_bytes(b"\x7fELF")
    # What oneDNN, and PyTorch after it, then take the CPU for.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    report = ask_torch([min(os.sched_getaffinity(0))], 1)
    assert not report.error
    assert report.mpi
    row = backend(report, built, None, "intel")
    assert row.state is State.FAIL
    assert "does not load" in row.evidence
    assert row.mend == "glmpatch build-backend --mpi intel --force"
    assert report.threads == 1
    assert report.fp32 > 0
    assert report.bf16 > 0
    assert not any(unit in report.kernel for unit in ("amx", "avx512"))
