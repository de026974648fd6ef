from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.training.dtype import choose_dtype
from tests.machine.machines import machine
from tests.machine.sysfs_tree import write, write_tree


@pytest.mark.parametrize(
    ("isa", "unit"), [(("amx_bf16", "avx512_bf16"), "AMX"), (("avx512_bf16",), "AVX512-BF16"), (("avx2",), None)]
)
def test_bf16_is_chosen_where_the_cpu_has_it(tmp_path: Path, isa: tuple[str, ...], unit: str | None) -> None:
    choice = choose_dtype(None, root=write_tree(tmp_path, machine(isa=isa)))
    assert choice.dtype == ("bf16" if unit else "fp32")
    assert (unit or "neither AMX nor AVX512-BF16") in choice.reason


def test_what_is_asked_for_is_taken(tmp_path: Path) -> None:
    assert choose_dtype("bf16", root=tmp_path).dtype == "bf16"


def test_a_machine_that_does_not_tell_gets_fp32(tmp_path: Path) -> None:
    assert choose_dtype(None, root=tmp_path).dtype == "fp32"
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00")
    assert choose_dtype(None, root=tmp_path).dtype == "fp32"
