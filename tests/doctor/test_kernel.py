from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.doctor.kernel import governor, huge_pages, numa_balancing, swap
from glmpatch.doctor.row import State
from tests.doctor.support import is_fine, type_below
from tests.machine.machines import machine
from tests.machine.sysfs_tree import write

THP = "sys/kernel/mm/transparent_hugepage/enabled"
GOVERNORS = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
TWO_NODES = machine(packages=2, snc=1)


@pytest.mark.parametrize("text", ["[always] madvise never", "always [madvise] never"])
def test_huge_pages_that_can_be_had(tmp_path: Path, text: str) -> None:
    write(tmp_path, THP, text)
    row = huge_pages(tmp_path)
    assert is_fine(row)
    assert row.evidence.startswith(f"{text} in /{THP}")
    assert ("THP_MEM_ALLOC_ENABLE" in row.evidence) == ("[madvise]" in text)


def test_no_huge_pages(tmp_path: Path) -> None:
    write(tmp_path, THP, "always madvise [never]")
    row = huge_pages(tmp_path)
    assert row.state is State.WARN
    type_below(tmp_path, row.mend)
    # The kernel shows its choice in brackets, and takes it without. PyTorch does not ask for them, as madvise needs.
    assert (tmp_path / THP).read_text() == "always\n"
    write(tmp_path, THP, "always madvise [never]")
    write(tmp_path, ".dockerenv", "")
    assert huge_pages(tmp_path).mend == f"{row.mend}  # on the host"


def test_numa_balancing_costs_only_where_there_are_nodes(tmp_path: Path) -> None:
    write(tmp_path, "proc/sys/kernel/numa_balancing", "1")
    row = numa_balancing(tmp_path, TWO_NODES)
    assert row.state is State.WARN
    assert row.mend == "sudo sysctl kernel.numa_balancing=0"
    assert is_fine(numa_balancing(tmp_path, machine(packages=1, snc=1)))
    write(tmp_path, "proc/sys/kernel/numa_balancing", "0")
    assert is_fine(numa_balancing(tmp_path, TWO_NODES))


def test_a_slow_governor(tmp_path: Path) -> None:
    for cpu in range(12):
        write(tmp_path, GOVERNORS.format(cpu), "powersave" if cpu else "performance")
    row = governor(tmp_path)
    assert row.state is State.WARN
    assert row.evidence.startswith("powersave on 11 CPUs, performance on 1 CPU in")
    type_below(tmp_path, row.mend)
    assert is_fine(governor(tmp_path))


def test_swap_in_use(tmp_path: Path) -> None:
    sizes = {"MemTotal": 100, "MemAvailable": 50, "SwapTotal": 100, "SwapFree": 96}

    def change(**changed: int) -> None:
        text = "\n".join(f"{name}:  {gigabytes * 10**6} kB" for name, gigabytes in {**sizes, **changed}.items())
        write(tmp_path, "proc/meminfo", text)

    change(SwapTotal=0, SwapFree=0)
    assert "none" in swap(tmp_path).evidence
    change()
    assert is_fine(swap(tmp_path))
    change(SwapFree=60)
    assert is_fine(swap(tmp_path)), "it lies there, and there is room for it"
    change(SwapFree=10)
    assert swap(tmp_path).mend.startswith("ps ")


def test_what_is_not_shown_is_said(tmp_path: Path) -> None:
    rows = [huge_pages(tmp_path), numa_balancing(tmp_path, TWO_NODES), governor(tmp_path), swap(tmp_path)]
    assert all(map(is_fine, rows))
    assert [row.evidence.split()[0].rstrip(";:") for row in rows] == ["unknown", "not", "not", "unknown"]
