"""Which dtype pays on this machine. bf16 is emulated on a CPU without it, and then many times slower than fp32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glmpatch.errors import EnvironmentLacksError
from glmpatch.machine.bf16 import bf16_unit
from glmpatch.machine.read import read_topology
from glmpatch.patching.model import Dtype


@dataclass(frozen=True, slots=True)
class DtypeChoice:
    """A dtype and the reason for it, as one clause."""

    dtype: Dtype
    reason: str


def choose_dtype(asked: Dtype | None, *, root: Path = Path("/")) -> DtypeChoice:
    """The dtype that was asked for; else bf16 where the CPU multiplies in it, and fp32 where it does not.

    Args:
        asked: The user's choice.
        root: Where `proc` and `sys` of this machine are.
    """
    if asked is not None:
        return DtypeChoice(asked, "as asked")
    try:
        unit = bf16_unit(read_topology(None, root=root).isa)
    except EnvironmentLacksError:
        unit = None
    if unit is None:
        return DtypeChoice("fp32", "this CPU has neither AMX nor AVX512-BF16")
    return DtypeChoice("bf16", f"this CPU has {unit}")
