"""What the formats share: the words for a report, and text of upstream that is fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from glmpatch.checking.model import Commit, PatchCheck, Report, Standing, TreeCheck, Trouble

MARKS = {
    Standing.CLEAN: "✓",
    Standing.LANDED: "↑",
    Standing.NOT_YET: "·",
    Standing.GONE: "∅",
    Standing.CONFLICT: "✗",
    Standing.WRONG: "!",
}
MEANINGS = {
    Standing.CLEAN: "the patch applies",
    Standing.LANDED: "upstream has it already: nothing left to do",
    Standing.NOT_YET: "what it patches is not there yet",
    Standing.GONE: "what it patches is no longer there",
    Standing.CONFLICT: "upstream is not what the patch understands",
    Standing.WRONG: "the patch applies, but the result is wrong",
}
Show: TypeAlias = Callable[[str], str]
_LONGEST = 300


def one_line(text: str, limit: int = _LONGEST) -> str:
    """Text that may hold anything, as one line: no control characters, no marks that turn the direction of text."""
    words = " ".join(text[: 2 * limit].split())
    line = printable(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """Text in which each character that is not to be seen, or not in Unicode, is replaced by one that is.

    A newline stays. Nothing else is left that acts on a terminal, turns the direction of text, or is illegal in XML.
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def place(trouble: Trouble) -> str:
    """The file, and the line if there is one."""
    path = one_line(trouble.path)
    return path if trouble.line is None else f"{path}:{trouble.line}"


def tree_title(tree: TreeCheck, show: Show = one_line) -> str:
    """The names of a tree, each shown the way of the format; the short hash of a commit that has none."""
    if tree.commit and not tree.names:
        return short_hash(tree.commit)
    return join(map(show, tree.names))


def short_hash(commit: Commit) -> str:
    """As many digits as people use."""
    return commit.hash[:10]


def day(commit: Commit) -> str:
    """The date of a commit, where it was made."""
    return commit.date.date().isoformat()


def join(words: Iterable[str], *, most: int = 8) -> str:
    """Words with commas; of very many, the first and how many are left."""
    words = list(words)
    more = [f"{len(words) - most} more"] if len(words) > most else []
    return ", ".join([*words[:most], *more])


def github_url(upstream: str) -> str:
    """The address of a repository on GitHub without what git alone needs; empty for any other upstream."""
    url = upstream.rstrip("/").removesuffix(".git")
    return url if re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url, re.ASCII) else ""


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, which is regular unless the plural is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def reason(cell: PatchCheck) -> str:
    """Why a patch stands as it does, in one line."""
    if cell.troubles:
        return "; ".join(
            f"{place(trouble)}: expected {one_line(trouble.expected)}, found {one_line(trouble.found)}"
            for trouble in cell.troubles
        )
    changed = join(one_line(change.path) for change in cell.changes)
    return f"changes {changed}" if changed else MEANINGS[cell.standing]


def verdict(report: Report, show: Show = one_line) -> str:
    """Whether there is drift, in one sentence."""
    drifted = [tree for tree in report.heads if tree.has_drifted]
    if drifted:
        ids = dict.fromkeys(cell.patch.id for tree in drifted for cell in tree.patches if cell.standing.is_drift)
        share = f"{len(ids)} of {count(len(report.patches), 'patch', 'patches')}"
        titles = join(tree_title(tree, show) for tree in drifted)
        return f"Drift: {share} ({join(ids)}) {'does' if len(ids) == 1 else 'do'} not fit {titles}."
    if report.heads:
        fit = f"{count(len(report.patches), 'patch', 'patches')} {'fits' if len(report.patches) == 1 else 'fit'}"
        return f"No drift: {fit} {join(tree_title(tree, show) for tree in report.heads)}."
    return "No drift: nothing was checked that somebody uses now."


def scope(report: Report) -> str:
    """How much was looked at."""
    tried = f"{count(len(report.trees), 'tree')}, {count(report.files, 'distinct file')}"
    return f"{tried}, {report.computed:,} of them computed anew"
