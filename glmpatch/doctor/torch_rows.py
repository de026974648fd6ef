"""PyTorch, its MPI backend, and how fast it is in bf16."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from glmpatch.building.problem import pip
from glmpatch.building.record import BackendInfo
from glmpatch.building.toolchain import AUTOLOAD
from glmpatch.doctor.kernel import read
from glmpatch.doctor.row import Check, Row
from glmpatch.doctor.torch_report import TorchReport
from glmpatch.doctor.tree import PatchedTree, apply_command
from glmpatch.machine.bf16 import bf16_unit
from glmpatch.machine.topology import Topology
from glmpatch.patching.model import Dtype
from glmpatch.wording import count

_TORCH = Check("torch", "PyTorch")
_BACKEND = Check("backend", "MPI backend")
_BF16 = Check("bf16", "bf16")
# Two names of one variable.
_ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# The Xeons with AMX, by the model number of family 6: Sapphire, Emerald and both Granite Rapids.
_HAVE_AMX = {143, 207, 173, 174}
_AMX_SINCE = (5, 16)
# What is measured on a machine with other work varies so much.
_CLEARLY = 1.25


def torch(report: TorchReport) -> Row:
    """Whether PyTorch can be imported."""
    if report.error:
        again = "" if report.error == "it is not installed" else "--force-reinstall "
        doing = "multiplying" if report.version else "import torch"
        return _TORCH.fails(f"{doing}: {report.error}", pip(f"install {again}torch"))
    return _TORCH.passes(f"{report.version}, {count(report.threads, 'thread')} for a rank")


def backend(report: TorchReport, built: BackendInfo | None, tree: PatchedTree | None, flavour: str) -> Row:
    """Whether `init_process_group("mpi")` works.

    Args:
        report: What PyTorch said.
        built: The installed backend.
        tree: The tree of upstream; None without one.
        flavour: The MPI to build for, if there is no backend.
    """
    if tree and tree.options.backend != "mpi":
        return _BACKEND.passes(f"not needed: the tree is patched for {tree.options.backend}")
    if report.error:
        return _BACKEND.fails("unknown, as PyTorch does not work", torch(report).mend)
    if not report.distributed:
        return _BACKEND.fails(
            "this PyTorch was built without torch.distributed", pip("install --force-reinstall torch")
        )
    if report.own:
        return _BACKEND.passes(f"PyTorch's own, with {report.library[:60] or 'an MPI that does not say which'}")
    if built is None:
        what = "the installed glmpatch-mpi is not whole" if report.mpi else "none"
        evidence = f"{what}: torch.distributed.is_mpi_available() is {report.mpi}"
        return _BACKEND.fails(evidence, f"glmpatch build-backend --mpi {flavour}")
    return _ours(report, built)


def _ours(report: TorchReport, built: BackendInfo) -> Row:
    """Whether glmpatch's backend fits this PyTorch and loads."""
    mend = f"glmpatch build-backend --mpi {built.flavour}"
    title = f"glmpatch-mpi for torch {built.torch} and {built.mpi} {built.mpi_version}"
    if os.environ.get(AUTOLOAD, "1") != "1":
        return _BACKEND.fails(f"{title}, and {AUTOLOAD} keeps PyTorch from loading it", f"unset {AUTOLOAD}")
    if built.torch != report.version:
        return _BACKEND.fails(f"{title}, and this is torch {report.version}", mend)
    if report.load_error or not report.mpi or not report.library.startswith(built.identity):
        why = report.load_error or f"what it loads is {report.library[:60] or 'unknown'}"
        return _BACKEND.fails(f"{title} does not load: {why}", f"{mend} --force")
    return _BACKEND.passes(f"{title}; is_mpi_available() is True, and it loads")


def bf16(report: TorchReport, topology: Topology, tree: PatchedTree | None, root: Path) -> Row:
    """Whether bf16 is faster than fp32 here, and whether the tree is patched for the faster one.

    Args:
        report: What PyTorch said.
        topology: The machine.
        tree: The tree of upstream; None without one.
        root: Where `proc` and `sys` are.
    """
    if not report.bf16:
        return _BF16.passes("not measured: PyTorch cannot do it here")
    evidence = _measured(report)
    here = bf16_unit(topology.isa)
    if here and _unit_of(report.kernel) not in {here, "AMX"}:
        return _BF16.warns(f"{evidence}. This CPU has {here}, which is not used", _use_unit())
    if here != "AMX" and (hidden := _hidden_amx(root)):
        return _BF16.warns(f"{evidence}. This Xeon has AMX, {hidden[0]}", hidden[1])
    better, patched = faster_dtype(report), tree.options.dtype if tree and tree.done else None
    if patched:
        evidence += f". The tree is patched for {patched}"
    if patched and better and better != patched:
        return _BF16.warns(evidence, apply_command(tree, better))
    if better == "fp32" and not patched:
        return _BF16.warns(f"{evidence}: use --dtype fp32", apply_command(tree, "fp32"))
    return _BF16.passes(evidence)


def faster_dtype(report: TorchReport) -> Dtype | None:
    """The dtype that is clearly faster; None if none is, or it was not measured."""
    if report.fp32 > report.bf16 * _CLEARLY:
        return "bf16"
    return "fp32" if report.bf16 > report.fp32 * _CLEARLY else None


def _measured(report: TorchReport) -> str:
    """What was measured, in a sentence without its end."""
    speed = report.fp32 / report.bf16
    unit = _unit_of(report.kernel)
    how = f"runs on {unit}" if unit else "is emulated" if speed < 1 else "runs"
    ratio = f"{speed:.1f}x faster" if speed >= 1 else f"{1 / speed:.1f}x slower"
    times = f"{report.bf16 * 1000:.1f} ms against {report.fp32 * 1000:.1f} ms for a quarter of a layer"
    return f"bf16 {how}, {ratio} than fp32: {times}, by {report.kernel or 'no kernel of oneDNN'}"


def _unit_of(kernel: str) -> str | None:
    """What a kernel of oneDNN runs on, by its name: `brg_matmul:avx10_1_512_amx`, `brg_matmul:avx512_core_bf16`."""
    if "amx" in kernel:
        return "AMX"
    return "AVX512-BF16" if re.search(r"avx512_core_(bf16|fp16)|avx10", kernel) else None


def _use_unit() -> str:
    limit = next((name for name in _ISA_LIMITS if name in os.environ), None)
    return f"unset {limit}" if limit else pip("install --upgrade torch")


def _hidden_amx(root: Path) -> tuple[str, str] | None:
    """Why a CPU that has AMX does not show it, and what to do about it; None if it has none, as far as we know."""
    info = dict(re.findall(r"^(cpu family|model|flags)\t+: (.*)$", read(root, "proc/cpuinfo") or "", re.MULTILINE))
    if info.get("cpu family") != "6" or int(info.get("model", 0)) not in _HAVE_AMX:
        return None
    kernel = read(root, "proc/sys/kernel/osrelease") or platform.release()
    version = re.match(r"(\d+)\.(\d+)", kernel)
    if version and tuple(map(int, version.groups())) < _AMX_SINCE:
        return f"but Linux {kernel} is too old for it", "# boot Linux 5.16 or newer"
    if "hypervisor" in info.get("flags", "").split():
        return "but the hypervisor hides it", "# give the virtual machine the CPU of its host (QEMU: -cpu host)"
    return "but the firmware or the kernel hides it", "grep -o 'clearcpuid=[^ ]*' /proc/cmdline  # take that out"
