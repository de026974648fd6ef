"""Which dtype pays on this machine. bf16 is emulated on a CPU without it, and then many times slower than fp32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glmpatch.patching.model import Dtype

_CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}


@dataclass(frozen=True, slots=True)
class DtypeChoice:
    """A dtype and the reason for it, as one clause."""

    dtype: Dtype
    reason: str


def choose_dtype(asked: Dtype | None, *, cpuinfo: Path = _CPUINFO) -> DtypeChoice:
    """The dtype that was asked for; else bf16 where the CPU multiplies in it, and fp32 where it does not."""
    if asked is not None:
        return DtypeChoice(asked, "as asked")
    unit = bf16_unit(cpuinfo)
    if unit is None:
        return DtypeChoice("fp32", "this CPU has neither AMX nor AVX512-BF16")
    return DtypeChoice("bf16", f"this CPU has {unit}")


def bf16_unit(cpuinfo: Path = _CPUINFO) -> str | None:
    """The name of the CPU's best unit for bf16, or None."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return next((unit for flag, unit in _BF16_FLAGS.items() if flag in flags), None)
