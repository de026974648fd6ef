"""Run torch's tests with every MPI: `python -m tests.conformance [--markdown] [--results FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tests.conformance.report import CELLS, Cell, markdown, run_cell
from tests.conformance.table import Table, load_table


def run_all(table: Table) -> list[Cell]:
    """Run every cell, and say on stderr how it goes."""
    cells = []
    for flavour, ranks in CELLS:
        cells.append(run_cell(flavour, ranks, table))
        problems = table.problems(cells[-1].verdicts, ranks)
        sys.stderr.write("\n".join([f"{flavour}, {ranks} ranks: {len(problems) or 'no'} problems", *problems, ""]))
    return cells


def main() -> None:
    """End with an error if a test did not do what is expected of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the tables for the README")
    parser.add_argument("--results", type=Path, metavar="FILE", help="take these if they are there, else write them")
    arguments = parser.parse_args()
    table = load_table()
    if arguments.results and arguments.results.exists():
        cells = msgspec.json.decode(arguments.results.read_bytes(), type=list[Cell])
    else:
        cells = run_all(table)
        if arguments.results:
            arguments.results.write_bytes(msgspec.json.encode(cells))
    if arguments.markdown:
        sys.stdout.write(markdown(cells, table) + "\n")
    sys.exit(any(table.problems(cell.verdicts, cell.ranks) for cell in cells))


if __name__ == "__main__":
    main()
