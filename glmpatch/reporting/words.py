"""What the formats share: the words for a report, and text of upstream that is fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from glmpatch.checking.model import Commit, PatchCheck, Report, Standing, TreeCheck, Trouble
from glmpatch.console import printable

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
_IDLE = {Standing.NOT_YET, Standing.GONE}
Show: TypeAlias = Callable[[str], str]
_LONGEST = 300


def one_line(text: str, limit: int = _LONGEST) -> str:
    """Text that may hold anything, as one line: no control characters, no marks that turn the direction of text."""
    words = " ".join(text[: 2 * limit].split())
    line = printable(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def place(trouble: Trouble) -> str:
    """The file, and the line if there is one."""
    path = one_line(trouble.path)
    return path if trouble.line is None else f"{path}:{trouble.line}"


def tree_title(tree: TreeCheck, show: Show = one_line) -> str:
    """The names of a tree, each shown the way of the format; the short hash of a commit that has none."""
    if tree.commit and not tree.names:
        return short_hash(tree.commit)
    names = join(map(show, tree.names))
    # A path such as ".." would be lost at the end of a sentence.
    return f'the folder "{names}"' if names.endswith(".") else names


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
        return f"No drift: {'; '.join(_fits(report, show))}."
    return "No drift: nothing was checked that somebody uses now."


def _fits(report: Report, show: Show) -> Iterator[str]:
    """The trees that all patches fit, then those that lack what some of them are for."""
    patches = count(len(report.patches), "patch", "patches")
    heads = [(tree_title(tree, show), sum(cell.standing in _IDLE for cell in tree.patches)) for tree in report.heads]
    whole = join(title for title, idle in heads if not idle)
    if whole:
        yield f"{patches} {'fits' if len(report.patches) == 1 else 'fit'} {whole}"
    numbers = {idle for _, idle in heads if idle}
    if numbers:
        share = f"{'up to ' if len(numbers) > 1 else ''}{max(numbers)} of {patches}"
        yield f"nothing to patch for {share} in {join(title for title, idle in heads if idle)}"


def scope(report: Report) -> str:
    """How much was looked at."""
    tried = f"{count(len(report.trees), 'tree')}, {count(report.files, 'distinct file')}"
    return f"{tried}, {report.computed:,} of them computed anew"
