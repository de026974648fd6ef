"""What a CPU has for bf16. Without any of it bf16 is emulated, and then many times slower than fp32."""

from __future__ import annotations

from collections.abc import Collection

# The best one first.
_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}


def bf16_unit(isa: Collection[str] | None) -> str | None:
    """The name of the best unit for bf16 among these instructions, or None. Without any told, there is none."""
    return next((unit for flag, unit in _UNITS.items() if flag in (isa or ())), None)
