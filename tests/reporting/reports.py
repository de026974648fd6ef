"""Reports to show: all standings, and texts of an upstream that means harm."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from glmpatch.checking.model import Commit, FileChange, PatchCheck, Report, Standing, TreeCheck, Trouble
from glmpatch.patching.model import Edit, Notice
from tests.engine_support import Swap, patch

NASTY = (
    "</script><script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "]]>&amp;<!--{{ 7 * 7 }}",
    "\x1b[31mred\x1b[0m\x07\x00",
    "a\r\n::error::b%0A::error::c##[error]d",
    "right\u202eto\u2066left\u200b",
    "a | b \\| c `` d ``` [x](javascript:1) ![y](z) @octocat #1 GH-1 **b**",
    "w" * 2_000,
    "name\udcff.py",
)
IDS = (
    *("requirements", "process-group", "precision", "frozen-broadcast"),
    *("train-flags", "cpu-autocast", "checkpoint-resume", "cpu-demos"),
)
PATCHES = tuple(patch(name, Edit("ptuning/main.py", Swap(old="old", new="new"))) for name in IDS)
BEFORE = b"import torch\n\n\ndef main():\n    model = old\n    return 'x'  # \xff </pre><b>\n"
AFTER = BEFORE.replace(b"old", b"new")
CHANGE = FileChange("ptuning/main.py", BEFORE, AFTER)
UPSTREAM = "https://github.com/THUDM/ChatGLM-6B.git"


def commit(number: int, subject: str = "Update") -> Commit:
    """A commit; the higher its number, the newer it is."""
    date = datetime(2023, 3, 14, tzinfo=timezone(timedelta(hours=8))) + timedelta(days=number)
    return Commit(f"{number:040x}"[::-1], date, subject, ())


def trouble(text: str = "no such text", *, line: int | None = 12, path: str = "ptuning/main.py") -> Trouble:
    """A trouble with the text in all its parts."""
    return Trouble(path, "swap", f"expected {text}", f"found {text}", f"hint {text}", line, commit(3, text))


def tree(number: int, *names: str, folder: bool = False, **cells: PatchCheck) -> TreeCheck:
    """A row of clean cells but for those that are given, by the id of their patch with underscores."""
    row = [PatchCheck(patch, Standing.CLEAN, changes=(CHANGE,)) for patch in PATCHES]
    for name, cell in cells.items():
        at = IDS.index(name.replace("_", "-"))
        row[at] = replace(cell, patch=PATCHES[at])
    return TreeCheck(names, None if folder else commit(number), tuple(row))


def cell(standing: Standing, *troubles: Trouble, **more: object) -> PatchCheck:
    """A cell; `tree` says of which patch."""
    return PatchCheck(PATCHES[0], standing, troubles, **more)  # type: ignore[arg-type]


def report(*trees: TreeCheck, upstream: str = UPSTREAM) -> Report:
    """A report of these rows."""
    return Report(upstream, PATCHES, trees, files=194, computed=3)


def clean_report() -> Report:
    """Two heads that all patches fit."""
    return report(tree(9, "main"), tree(8, "dev"))


def crowded_report() -> Report:
    """Twenty branches at one commit, a branch with a long name, and three times as many patches."""
    one = report(tree(9, *(f"branch-{number}" for number in range(20))), tree(8, "feature/" + "long" * 40), tree(7))
    rows = tuple(replace(row, patches=row.patches * 3) for row in one.trees)
    return replace(one, patches=one.patches * 3, trees=rows)


def rich_report() -> Report:
    """Two heads and a history, with every standing."""
    conflict = cell(Standing.CONFLICT, trouble())
    older = cell(Standing.CONFLICT, replace(trouble(), line=99))
    landed = cell(Standing.LANDED, notices=(("train.sh", Notice("look here", 7)),))
    wrong = cell(Standing.WRONG, trouble("an optimizer step outside", path="ptuning/trainer.py", line=None))
    once = cell(Standing.CONFLICT, trouble("what only old commits had"))
    return report(
        tree(9, "main", "pinned", precision=conflict, cpu_autocast=landed, train_flags=wrong),
        tree(8, "dev", cpu_autocast=landed, frozen_broadcast=cell(Standing.GONE)),
        *(tree(number, precision=older) for number in (7, 6, 5, 4)),
        tree(2, cpu_demos=once),
        tree(1, process_group=cell(Standing.NOT_YET)),
    )


def nasty_report(*, folder: bool = False) -> Report:
    """Every text of upstream is hostile: names, subjects, paths, what was found, and the bytes of a diff."""
    bytes_ = "\n".join(NASTY).encode("utf-8", "surrogateescape")
    rows = []
    for number, text in enumerate(NASTY):
        troubles = cell(Standing.CONFLICT, trouble(text, path=text))
        change = FileChange(f"{text}.py", bytes_ + b"old", bytes_ + b"new\r\n")
        clean = cell(Standing.CLEAN, changes=(change,), notices=((text, Notice(text)),))
        row = tree(number, text, folder=folder, requirements=clean, process_group=troubles)
        rows.append(row if row.commit is None else replace(row, commit=replace(row.commit, subject=text)))
    return report(*rows, upstream=NASTY[0])
