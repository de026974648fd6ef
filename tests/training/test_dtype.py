from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.training.dtype import bf16_unit, choose_dtype


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


def flags(*names: str) -> str:
    return f"processor\t: 0\nmodel name\t: amx_bf16 is only a name here\nflags\t\t: fpu {' '.join(names)} sse\n\n"


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        (("avx512_bf16", "amx_bf16"), "AMX"),
        (("amx_bf16",), "AMX"),
        (("avx512_bf16",), "AVX512-BF16"),
        (("avx2", "avx512f", "amx_int8", "amx_tile"), None),
        ((), None),
    ],
)
def test_bf16_is_chosen_where_the_cpu_has_it(cpuinfo: Path, names: tuple[str, ...], unit: str | None) -> None:
    cpuinfo.write_text(flags(*names))
    choice = choose_dtype(None, cpuinfo=cpuinfo)
    assert choice.dtype == ("bf16" if unit else "fp32")
    assert (unit or "neither AMX nor AVX512-BF16") in choice.reason
    assert bf16_unit(cpuinfo) == unit


def test_what_is_asked_for_is_taken(cpuinfo: Path) -> None:
    cpuinfo.write_text(flags("avx2"))
    assert choose_dtype("bf16", cpuinfo=cpuinfo).dtype == "bf16"


def test_a_machine_that_does_not_tell_gets_fp32(cpuinfo: Path) -> None:
    assert choose_dtype(None, cpuinfo=cpuinfo).dtype == "fp32"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert choose_dtype(None, cpuinfo=cpuinfo).dtype == "fp32"
