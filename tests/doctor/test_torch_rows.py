from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.record import BackendInfo
from glmpatch.doctor.row import Row, State
from glmpatch.doctor.torch_report import TorchReport
from glmpatch.doctor.torch_rows import backend, bf16, torch
from glmpatch.doctor.tree import PatchedTree
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.plan import Plan
from tests.doctor.support import is_fine
from tests.machine.machines import machine
from tests.machine.sysfs_tree import write

IDENTITY = "Intel(R) MPI Library 2021.18.1"
AMX = TorchReport(
    *("", "2.13.0+cpu", True, True, False, f"{IDENTITY} for Linux* OS", ""),
    fp32=0.011,
    bf16=0.001,
    threads=8,
    kernel="brg_matmul:avx10_1_512_amx",
)
EMULATED = replace(AMX, fp32=0.01, bf16=0.12, kernel="")
BUILT = BackendInfo(
    *("0.1.0", "2.13.0+cpu", "intel", "Intel MPI", "2021.18.1", "/opt/mpi", IDENTITY, "", "g++", (), (), False, "")
)
NONE = machine(isa=("avx2",))


def tree(dtype: Dtype, backend_: Backend = "mpi") -> PatchedTree:
    """A tree to which there is nothing to apply."""
    return PatchedTree(Path("my tree"), Options(backend_, dtype), Plan((), {}))


def judge(report: TorchReport, built: BackendInfo | None = BUILT, tree_: PatchedTree | None = None) -> Row:
    return backend(report, built, tree_, "openmpi")


def test_import() -> None:
    assert is_fine(torch(AMX))
    row = torch(TorchReport(error="it is not installed"))
    assert row.state is State.FAIL
    assert row.mend.endswith(" -m pip install torch")
    row = torch(TorchReport(error="OSError: libgone.so"))
    assert "OSError: libgone.so" in row.evidence
    assert "--force-reinstall" in row.mend


def test_a_backend_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    assert is_fine(judge(AMX))
    own = replace(AMX, own=True, library="Open MPI v4.1.4")
    assert "Open MPI v4.1.4" in judge(own, None).evidence
    assert is_fine(judge(replace(AMX, mpi=False), None, tree("fp32", "gloo")))


@pytest.mark.parametrize(
    ("report", "built", "evidence", "mend"),
    [
        ({"mpi": False}, None, "none: torch.distributed.is_mpi_available() is False", "build-backend --mpi openmpi"),
        ({}, None, "not whole", "glmpatch build-backend --mpi openmpi"),
        ({"version": "2.14.0"}, BUILT, "this is torch 2.14.0", "glmpatch build-backend --mpi intel"),
        (
            {"load_error": "undefined symbol: x"},
            BUILT,
            "undefined symbol",
            "glmpatch build-backend --mpi intel --force",
        ),
        ({"mpi": False}, BUILT, "does not load", "glmpatch build-backend --mpi intel --force"),
        ({"library": "MPICH 5"}, BUILT, "what it loads is MPICH 5", "glmpatch build-backend --mpi intel --force"),
        ({"distributed": False}, BUILT, "without torch.distributed", "force-reinstall"),
        ({"error": "OSError"}, BUILT, "unknown", "force-reinstall"),
    ],
)
def test_a_backend_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, report: dict[str, Any], built: BackendInfo | None, evidence: str, mend: str
) -> None:
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    row = judge(replace(AMX, **report), built)
    assert row.state is State.FAIL
    assert evidence in row.evidence
    assert mend in row.mend


def test_a_backend_that_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    assert judge(replace(AMX, mpi=False)).mend == "unset TORCH_DEVICE_BACKEND_AUTOLOAD"


def test_bf16_on_amx(tmp_path: Path) -> None:
    row = bf16(AMX, machine(), None, tmp_path)
    assert is_fine(row)
    assert row.evidence.startswith(
        "bf16 runs on AMX, 11.0x faster than fp32: 1.0 ms against 11.0 ms for a quarter of a layer"
    )
    assert is_fine(bf16(AMX, machine(), tree("bf16"), tmp_path))
    row = bf16(AMX, machine(), tree("fp32"), tmp_path)
    assert row.mend == "glmpatch revert 'my tree' && glmpatch apply 'my tree' --dtype bf16"


def test_bf16_that_is_emulated(tmp_path: Path) -> None:
    row = bf16(EMULATED, NONE, None, tmp_path)
    assert row.state is State.WARN
    assert row.evidence.startswith("bf16 is emulated, 12.0x slower than fp32")
    assert row.evidence.endswith("by no kernel of oneDNN: use --dtype fp32")
    assert row.mend == "glmpatch apply ./ChatGLM-6B --dtype fp32"
    assert is_fine(bf16(EMULATED, NONE, tree("fp32"), tmp_path))
    row = bf16(EMULATED, NONE, tree("bf16", "gloo"), tmp_path)
    assert shlex.split(row.mend)[-4:] == ["--backend", "gloo", "--dtype", "fp32"]


def test_as_fast_is_fine(tmp_path: Path) -> None:
    alike = replace(EMULATED, bf16=0.0105)
    assert is_fine(bf16(alike, NONE, None, tmp_path))
    assert is_fine(bf16(alike, NONE, tree("fp32"), tmp_path))
    assert is_fine(bf16(alike, NONE, tree("bf16"), tmp_path))


def test_a_unit_that_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_avx512 = replace(AMX, kernel="brg_matmul:avx512_core_bf16")
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert bf16(only_avx512, machine(), None, tmp_path).mend.endswith("install --upgrade torch")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert bf16(only_avx512, machine(), None, tmp_path).mend == "unset DNNL_MAX_CPU_ISA"
    assert is_fine(bf16(only_avx512, machine(isa=("avx512_bf16",)), None, tmp_path))


@pytest.mark.parametrize(
    ("model", "kernel", "flags", "evidence"),
    [
        (143, "5.4.0-100", "fpu", "Linux 5.4.0-100 is too old"),
        (207, "6.8.0", "fpu hypervisor", "the hypervisor hides it"),
        (173, "6.8.0", "fpu", "the firmware or the kernel hides it"),
        (106, "5.4.0", "fpu", ""),
    ],
)
def test_amx_that_is_hidden(tmp_path: Path, model: int, kernel: str, flags: str, evidence: str) -> None:
    text = f"processor\t: 0\ncpu family\t: 6\nmodel\t\t: {model}\nmodel name\t: Xeon\nflags\t\t: {flags}"
    write(tmp_path, "proc/cpuinfo", text)
    write(tmp_path, "proc/sys/kernel/osrelease", kernel)
    row = bf16(replace(EMULATED, bf16=0.01), NONE, None, tmp_path)
    assert is_fine(row) == (not evidence)
    assert evidence in row.evidence


def test_nothing_was_measured(tmp_path: Path) -> None:
    assert is_fine(bf16(TorchReport(error="no"), machine(), None, tmp_path))
