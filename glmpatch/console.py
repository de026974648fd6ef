"""How results look: tables, notices and conflicts on a terminal, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from glmpatch.patching.model import Absent, AlreadyDone, Changed, Conflict
from glmpatch.patching.plan import EditResult, Plan, State
from glmpatch.patching.series import OutOfScope, Series

_STYLES = {
    State.PENDING: "yellow",
    State.APPLIED: "green",
    State.PARTIAL: "yellow",
    State.CONFLICT: "bold red",
    State.ABSENT: "dim",
}
_OUTCOMES = {Changed: "changed", AlreadyDone: "already done", Absent: "absent", Conflict: "conflict"}


def make_console(*, stderr: bool = False) -> Console:
    """A console that is plain where there is no terminal, and wide enough there for a path not to be folded."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def print_plan(console: Console, plan: Plan, *, commits: Mapping[str, str] | None = None, done: bool = False) -> None:
    """A line for each patch, then the notices and the conflicts.

    Args:
        console: Where to.
        plan: What to show.
        commits: The hash of the commit that each patch became, by its id.
        done: Whether what the plan changes has been written.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("patch", "state", *(("commit",) if commits else ()), "files"):
        table.add_column(heading, no_wrap=heading != "files")
    for result in plan.patches:
        state = result.state
        label = State.APPLIED if done and state in {State.PENDING, State.PARTIAL} else state
        commit = [commits.get(result.patch.id, "")[:10]] if commits else []
        files = Text(", ".join(_paths(result.edits)))
        table.add_row(result.patch.id, Text(label.value, _STYLES[label]), *commit, files)
    console.print(table)
    for edit in plan.edits:
        if isinstance(edit.outcome, Changed | AlreadyDone):
            for notice in edit.outcome.notices:
                print_line(console, Text("note: ", "yellow"), _place(edit.path, notice.line), ": ", notice.message)
    print_conflicts(console, plan)


def print_conflicts(console: Console, plan: Plan) -> None:
    """What was expected, what was found, and where."""
    for edit in plan.edits:
        if isinstance(edit.outcome, Conflict):
            where = _place(edit.path, edit.outcome.line)
            print_line(console, Text("conflict: ", "bold red"), where, f" ({edit.transform})")
            for name in ("expected", "found", "hint"):
                if value := getattr(edit.outcome, name):
                    print_line(console, f"  {name + ':':<9} ", value)


def printable(text: str) -> str:
    """Text of upstream's that cannot act on a terminal: what is not to be seen becomes a replacement character."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def print_line(console: Console, *parts: str | Text) -> None:
    """One line as it is: not folded, so that a path in it can be copied, and without control characters of upstream."""
    line = Text.assemble(*parts)
    line.plain = printable(line.plain)
    console.print(line, soft_wrap=True)


def print_diff(console: Console, diff: bytes) -> None:
    """A unified diff, coloured on a terminal, byte for byte elsewhere."""
    if console.is_terminal:
        from rich.syntax import Syntax  # noqa: PLC0415 - 10 ms that no other command should pay

        console.print(Syntax(printable(diff.decode(errors="replace")), "diff", background_color="default"))
    else:
        sys.stdout.buffer.write(diff)


def print_left_alone(console: Console, entries: Sequence[OutOfScope]) -> None:
    """The files of upstream that are left alone on purpose."""
    for entry in entries:
        print_line(console, Text("left alone: ", "dim"), f"{entry.path} ({entry.why})")


def print_patches(console: Console, series: Series) -> None:
    """Every patch with its reason."""
    for patch in series.patches:
        console.print(f"[bold]{escape(patch.id)}[/bold]  {escape(patch.title)}")
        console.print(Text("  " + ", ".join(dict.fromkeys(edit.path for edit in patch.edits)), "cyan"))
        for text in (patch.why, f"Can go when: {patch.drop_when}"):
            console.print(Text(" ".join(text.split())), width=min(console.width, 100))
        console.print()


def print_document(text: str) -> None:
    """Write a document for programs to standard output: in UTF-8, whatever the terminal speaks."""
    # There is none if it was closed.
    if sys.stdout:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    print_document(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def plan_as_json(plan: Plan, left_alone: Sequence[OutOfScope]) -> dict[str, Any]:
    """A plan in the words of the JSON output."""
    return {
        "clean": not plan.conflicts,
        "patches": [
            {
                "id": result.patch.id,
                "title": result.patch.title,
                "state": result.state.value,
                "edits": [_edit_as_json(edit) for edit in result.edits],
            }
            for result in plan.patches
        ],
        "out_of_scope": list(left_alone),
    }


def series_as_json(series: Series) -> list[dict[str, Any]]:
    """The patches in the words of the JSON output."""
    return [
        {
            "id": patch.id,
            "title": patch.title,
            "why": patch.why,
            "drop_when": patch.drop_when,
            "edits": [
                {"path": edit.path, "transform": edit.transform.name, "optional": edit.optional} for edit in patch.edits
            ],
        }
        for patch in series.patches
    ]


def _edit_as_json(edit: EditResult) -> dict[str, Any]:
    outcome = edit.outcome
    described: dict[str, Any] = {
        "path": edit.path,
        "transform": edit.transform,
        "outcome": _OUTCOMES[type(outcome)],
        "notices": list(outcome.notices) if isinstance(outcome, Changed | AlreadyDone) else [],
    }
    if isinstance(outcome, Conflict):
        described["conflict"] = outcome
    return described


def _paths(edits: tuple[EditResult, ...]) -> list[str]:
    """The files that the edits found, each once."""
    return list(dict.fromkeys(edit.path for edit in edits if not isinstance(edit.outcome, Absent)))


def _place(path: str, line: int | None) -> str:
    return path if line is None else f"{path}:{line}"
