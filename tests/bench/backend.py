"""The MPI backend: two ranks on this machine, against gloo and against copying memory, all in one run."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from glmpatch.building.backend import BackendOptions, build_backend
from glmpatch.mpi import FLAVOURS
from tests.mpi_support import ALL_FLAVOURS, check_ranks, installation

Found: TypeAlias = dict[str, dict[str, Any]]  # what the job writes
RANKS = 2
JOB = Path(__file__).with_name("collectives.py")


def collectives(found: dict[str, dict[str, float]], title: str) -> Table:
    """Microseconds, the speed against gloo, and the bandwidth against that of both ranks copying at once."""
    table = Table("collective", "MPI us", "gloo us", "gloo/MPI", "memcpy us", "memcpy/MPI", title=title, box=None)
    for name, case in found.items():
        mpi, gloo, copy = (case[peer] for peer in ("mpi", "gloo", "memcpy"))
        row = f"{mpi * 1e6:.0f}", f"{gloo * 1e6:.0f}", f"{gloo / mpi:.1f}", f"{copy * 1e6:.0f}", f"{copy / mpi:.2f}"
        table.add_row(name, *row)
    return table


def build_times(console: Console) -> None:
    """How long the wheel takes, cold and when nothing has changed. No peer: PyTorch from source takes hours."""
    with tempfile.TemporaryDirectory() as scratch:
        options = BackendOptions("intel", mpi_root=installation("intel").root, wheel_dir=Path(scratch))
        times = []
        for _ in range(2):
            start = time.perf_counter()
            build_backend(options, lambda _event: None)
            times.append(time.perf_counter() - start)
    cached = " (ccache is on PATH: not cold)" if shutil.which("ccache") else ""
    console.print(f"build and prove: {times[0]:.1f} s{cached}; again: {times[1]:.2f} s")


def summary(found: dict[str, Found]) -> str:
    """The table of the README: how many times as fast as gloo, and the share of memcpy's bandwidth, by MPI."""
    titles = [f"{FLAVOURS[flavour].title} {installation(flavour).version}" for flavour in ALL_FLAVOURS]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for name in found["intel"]["collectives"]:
        cells = []
        for flavour in ALL_FLAVOURS:
            case = found[flavour]["collectives"][name]
            cells.append(f"{case['gloo'] / case['mpi']:.1f} ({case['memcpy'] / case['mpi']:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(console: Console) -> None:
    """Measure with every MPI, and print the tables."""
    build_times(console)
    all_found: dict[str, Found] = {}
    for flavour in ALL_FLAVOURS:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "found.json"
            check_ranks(flavour, RANKS, JOB, file, timeout=600)
            found = all_found[flavour] = json.loads(file.read_text())
        version = installation(flavour).version
        console.print(collectives(found["collectives"], f"{flavour} {version}, {RANKS} ranks, medians"))
        step = {name: seconds * 1e3 for name, seconds in found["step"].items()}
        console.print(
            f"DDP step, 100 MB of gradients: {step['overlapped']:.0f} ms; with each bucket awaited:"
            f" {step['blocking']:.0f} ms; without communication: {step['silent']:.0f} ms\n"
        )
    console.print(summary(all_found), markup=False, soft_wrap=True)
