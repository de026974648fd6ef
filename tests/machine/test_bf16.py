from __future__ import annotations

import pytest

from glmpatch.machine.bf16 import bf16_unit


@pytest.mark.parametrize(
    ("isa", "unit"),
    [
        (("avx512_bf16", "amx_bf16"), "AMX"),
        (("amx_bf16",), "AMX"),
        (("avx512_bf16",), "AVX512-BF16"),
        (("avx2", "avx512f", "amx_tile"), None),
        ((), None),
        (None, None),
    ],
)
def test_the_best_unit_is_named(isa: tuple[str, ...] | None, unit: str | None) -> None:
    assert bf16_unit(isa) == unit
