"""The report on a terminal and in a log."""

from __future__ import annotations

import io
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glmpatch.checking.model import Report, Standing, TreeCheck
from glmpatch.console import print_line
from glmpatch.reporting.findings import Finding, find_troubles
from glmpatch.reporting.words import MARKS, day, join, one_line, place, scope, tree_title, verdict

_WORDS = {
    Standing.CLEAN: "ok",
    Standing.LANDED: "landed",
    Standing.NOT_YET: "not yet",
    Standing.GONE: "gone",
    Standing.CONFLICT: "CONFLICT",
    Standing.WRONG: "WRONG",
}
_STYLES = {
    Standing.CLEAN: "green",
    Standing.LANDED: "cyan",
    Standing.NOT_YET: "dim",
    Standing.GONE: "dim",
    Standing.CONFLICT: "bold red",
    Standing.WRONG: "bold magenta",
}
_ALIKE = 3  # so many rows that are alike become two
_GAP = 2
_DATE = 10
_NAME = 24  # the widest column of names
_SUBJECT = 20  # the narrowest column of subjects, which only the history needs


def render(report: Report) -> str:
    """The report as in a log that is 120 columns wide."""
    file = io.StringIO()
    print_report(Console(file=file, width=120, highlight=False, emoji=False, color_system=None), report)
    return file.getvalue()


def print_report(console: Console, report: Report) -> None:
    """A line for each tree, each trouble once, what can be dropped, and the verdict.

    Where the names of the patches do not fit the width, they are numbered and explained below the table.
    """
    headings = [patch.id.replace("-", "-\n") for patch in report.patches]
    names = min(max((cell_len(_title(tree)) for tree in report.trees), default=0), _NAME)
    room = console.width - names - _DATE - 2 * _GAP
    subject = room - sum(max(map(len, (*heading.split("\n"), *_WORDS.values()))) + _GAP for heading in headings)
    wide = subject >= (0 if len(report.heads) == len(report.trees) else _SUBJECT)
    if not wide:
        headings = [str(number) for number, _ in enumerate(report.patches, 1)]
        subject = room - sum(len(heading) + _GAP for heading in headings)
    names = max(names + min(subject, 0), 1)
    console.print(_table(report, headings, _WORDS if wide else MARKS, (names, subject)))
    if not wide:
        _print_legend(console, report)
    for finding in find_troubles(report):
        _print_finding(console, finding)
    for patch, landed in report.landed:
        where = join(one_line(name) for name in landed)
        print_line(console, Text("landed: ", "cyan"), f"{patch.id} has nothing left to do in {where}: drop it there")
    print_line(console, Text(verdict(report), "bold red" if report.has_drifted else "bold green"))
    print_line(console, Text(f"{one_line(report.upstream)}: {scope(report)}", "dim"))


def _table(report: Report, headings: list[str], words: dict[Standing, str], widths: tuple[int, int]) -> Table:
    """The grid. Three or more neighbours in the history that look alike share two rows, so that changes are seen."""
    columns = ["tree", "date", "subject"] if widths[1] >= len("subject") else ["tree", "date"]
    table = Table(box=None, pad_edge=False)
    for heading in (*columns, *headings):
        table.add_column(Text(heading), no_wrap=True, vertical="bottom")
    for _, group in groupby(report.trees, key=lambda tree: tree.names or [cell.standing for cell in tree.patches]):
        trees = list(group)
        for tree in trees if len(trees) < _ALIKE else trees[:1]:
            cells = [Text(words[cell.standing], _STYLES[cell.standing]) for cell in tree.patches]
            subject = one_line(tree.commit.subject) if tree.commit else ""
            table.add_row(*_tree(tree, tree_title(tree), subject, widths)[: len(columns)], *cells)
        if len(trees) >= _ALIKE:
            note = f"{len(trees) - 1:,} commits alike"
            table.add_row(*_tree(trees[-1], _title(trees[-1]), note, widths)[: len(columns)])
    return table


def _title(tree: TreeCheck) -> str:
    """The name of a tree, or that of the last of many that are alike."""
    return tree_title(tree) if tree.names else f"… to {tree_title(tree)}"


def _tree(tree: TreeCheck, title: str, subject: str, widths: tuple[int, int]) -> list[Text]:
    """The columns that say which tree it is, cut to the widths of the first and the last."""
    cells = [Text(title, "bold" if tree.names else ""), Text(day(tree.commit) if tree.commit else ""), Text(subject)]
    cells[0].truncate(widths[0], overflow="ellipsis")
    cells[2].truncate(max(widths[1], 0), overflow="ellipsis")
    return cells


def _print_legend(console: Console, report: Report) -> None:
    print_line(console, ", ".join(f"{number} {patch.id}" for number, patch in enumerate(report.patches, 1)))
    print_line(console, *(Text(f"{MARKS[one]} {_WORDS[one].lower()}  ", _STYLES[one]) for one in Standing))


def _print_finding(console: Console, finding: Finding) -> None:
    """As `print_conflicts` does. What only old commits had is marked, as nobody needs to act."""
    trouble = finding.trouble
    kind, style = _WORDS[finding.standing].lower(), _STYLES[finding.standing]
    label = Text(f"{kind}: ", style) if finding.heads else Text(f"once a {kind}: ", "dim")
    print_line(console, label, place(trouble), f" ({finding.patch.id}, {trouble.transform})")
    lines = {"expected": trouble.expected, "found": trouble.found, "hint": trouble.hint, "since": finding.since}
    for name, value in {**lines, "where": finding.where()}.items():
        if value:
            print_line(console, f"  {name + ':':<9} ", one_line(value))
