"""The tables for the README, from the verdicts on all tests with every MPI and several numbers of ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from glmpatch.mpi import FLAVOURS, FlavourId
from tests.conformance.driver import Suite, Verdict
from tests.conformance.table import Table
from tests.mpi_support import ALL_FLAVOURS, installation

CELLS: tuple[tuple[FlavourId, int], ...] = tuple((flavour, ranks) for ranks in (2, 3, 4) for flavour in ALL_FLAVOURS)

_COUNTS = {
    "selected": "selected by torch",
    "selected passed": "passed",
    "selected gpu": "need GPUs",
    "selected ranks": "need more ranks",
    "selected unexpected": "not passing",
    "lifted passed": "lifted: passed",
    "lifted ranks": "lifted: need more ranks",
    "lifted unexpected": "lifted: not passing",
}


@dataclass(frozen=True)
class Cell:
    """The verdicts on all tests, with one MPI and one number of ranks."""

    flavour: FlavourId
    version: str
    ranks: int
    verdicts: dict[str, Verdict]


def run_cell(flavour: FlavourId, ranks: int, table: Table) -> Cell:
    """Run everything."""
    verdicts = Suite(flavour, ranks, table.lifted_tests(fails_job=False)).run()
    ending = table.lifted_tests(fails_job=True)
    verdicts |= Suite(flavour, ranks, ending, fails_job=True).run(ending)
    return Cell(flavour, installation(flavour).version, ranks, verdicts)


def counts(cell: Cell, table: Table) -> Counter[str]:
    """How many tests torch selects for this backend, how many more are lifted, and what became of both."""
    found: Counter[str] = Counter()
    for name, verdict in cell.verdicts.items():
        if verdict.outcome == "left out":
            continue
        who = "lifted" if name in table.all_lifted else "selected"
        absence = table.absence(name, cell.ranks)
        if absence is None:
            what = "passed" if verdict.outcome == "passed" else "unexpected"
        else:
            what = absence.kind if absence.explains(verdict) else "unexpected"
        found.update((who, f"{who} {what}"))
    return found


def markdown(cells: Sequence[Cell], table: Table) -> str:
    """What passed, and what did not and why. MPIs that came to the same share a row."""
    rows = defaultdict(list)
    for cell in cells:
        found = counts(cell, table)
        numbers = (cell.ranks, *(found[key] for key in _COUNTS))
        rows[numbers].append(f"{FLAVOURS[cell.flavour].title} {cell.version}")
    passing = _grid(
        ("MPI", "ranks", *_COUNTS.values()),
        ((", ".join(mpis), *map(str, numbers)) for numbers, mpis in sorted(rows.items())),
    )
    reasons = _grid(
        ("tests", "do not count, because"),
        ((str(len(absence.tests)), absence.reason) for absence in table.absent),
    )
    lifted = _grid(
        ("tests", "are left out by torch and run here all the same"),
        ((str(len(group.tests)), group.reason) for group in table.lifted),
    )
    return f"{passing}\n\n{lifted}\n\n{reasons}"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
