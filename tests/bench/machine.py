"""Reading a machine and writing its launch script: whole processes, in turn with hwloc's own reader."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glmpatch.machine import hwloc
from glmpatch.machine.read import read_topology
from tests.bench.patching import GLMPATCH, RUNS, compare, seconds
from tests.mpi_support import ROOTS

MACHINE = "max9462-flat"
GOAL_SECONDS = 0.3


def report(console: Console) -> None:
    """Measure, and print the table. Exits with 1 if one of the commands takes longer than the goal."""
    lstopo = shutil.which("lstopo-no-graphics")
    if lstopo is None:
        console.print("machine: skipped, lstopo-no-graphics is not installed (Debian: apt-get install hwloc)")
        return
    table = Table("what", "seconds", "lstopo's", "ratio", title=f"medians of {RUNS} runs", box=None)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        node = work / "node.xml"
        node.write_text(hwloc.render(read_topology(MACHINE)), encoding="utf-8")
        launch = ["launch", "--mpi", "intel", "--mpi-root", str(ROOTS / "intel"), "--output", "launch_cpu.sh"]
        slowest = 0.0
        for command in (["topology"], launch):
            for where, options, peer in (
                ("this machine", [], [lstopo]),
                (f"{MACHINE} as XML", ["--topology", str(node)], [lstopo, "--input", str(node)]),
            ):
                ours, others = [*GLMPATCH, *command, *options], peer
                own, other, ratio = compare(lambda: seconds(ours, work), lambda: seconds(others, work))  # noqa: B023
                slowest = max(slowest, own)
                table.add_row(f"{command[0]}, {where}", f"{own:.3f}", f"{other:.3f}", f"{ratio:.1f}")
    console.print(table)
    if slowest > GOAL_SECONDS:
        console.print(f"slower than {GOAL_SECONDS} s")
        sys.exit(1)
