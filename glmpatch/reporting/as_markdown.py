"""The report for the summary of a workflow, and for an issue.

What upstream wrote stands in code spans alone, where GitHub sees no markup, mention, issue or link.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from glmpatch import __version__
from glmpatch.checking.model import Commit, Report, Standing
from glmpatch.reporting.findings import Finding, find_troubles
from glmpatch.reporting.words import (
    count,
    day,
    github_url,
    join,
    one_line,
    place,
    scope,
    short_hash,
    tree_title,
    verdict,
)

# GitHub takes no longer text in an issue; the rest is room for what a workflow may put around it.
LARGEST = 65_536 - 1_536
_CELLS = {
    Standing.CLEAN: "✅ ok",
    Standing.LANDED: "🎉 landed",
    Standing.NOT_YET: "▫️ not yet",
    Standing.GONE: "▫️ gone",
    Standing.CONFLICT: "❌ conflict",
    Standing.WRONG: "❌ wrong result",
}
_OPEN = "<details>"
_CLOSE = ("", "</details>")
_CUT = "\n*This is longer than GitHub takes. The end is missing here, not in the other formats.*"


def render(report: Report) -> str:
    """The report as Markdown, cut where it would be too long for an issue."""
    base = github_url(report.upstream)
    found = find_troubles(report)
    old = [finding for finding in found if not finding.heads]
    title = f"## {'❌' if report.has_drifted else '✅'} {verdict(report, _code)}"
    lines = [
        "",
        f"{_code(report.upstream)}: {scope(report)}. Checked by glmpatch {__version__}.",
        "",
        *_table(report, base),
    ]
    for finding in found[: len(found) - len(old)]:
        lines += _section(finding, base)
    if report.landed:
        lines += ["", "### Landed upstream", ""]
    for patch, names in report.landed:
        where = f"{patch.id} has nothing left to do in {join(map(_code, names))}: it can be dropped there."
        lines.append(f"- {where} It can go for good when: {_code(patch.drop_when)}")
    if old:
        lines += ["", f"{_OPEN}<summary>{count(len(old), 'trouble')} that only old commits had</summary>", ""]
        lines += [f"- {finding.patch.id}: {_place(finding, base)}, {finding.where(_code)}" for finding in old]
        lines += _CLOSE
    return _cut(title, lines)


def _table(report: Report, base: str) -> list[str]:
    """The heads by the patches."""
    ids = [patch.id for patch in report.patches]
    rows = [["tree", "commit", *ids], ["---"] * (len(ids) + 2)]
    for tree in report.heads:
        commit = f"{_commit(tree.commit, base)} {day(tree.commit)}" if tree.commit else "a folder"
        rows.append([tree_title(tree, _code), commit, *(_CELLS[cell.standing] for cell in tree.patches)])
    # Not even a backslash keeps GitHub from ending a cell at a bar, if there is one before it in the text.
    return [f"| {' | '.join(cell.replace('|', '¦') for cell in row)} |" for row in rows]


def _section(finding: Finding, base: str) -> list[str]:
    trouble = finding.trouble
    lines = ["", f"### {finding.patch.id}: {finding.standing.value}", "", f"- where: {_place(finding, base)}"]
    said = {"expected": trouble.expected, "found": trouble.found, "hint": trouble.hint}
    lines += [f"- {name}: {_code(value)}" for name, value in said.items() if value]
    lines.append(f"- in: {finding.where(_code)}")
    if commit := trouble.since:
        lines.append(f"- since: {_commit(commit, base)} {day(commit)} {_code(commit.subject)}")
    return lines


def _place(finding: Finding, base: str) -> str:
    """The file and the line; a link where it is on GitHub."""
    trouble, commit = finding.trouble, finding.trees[0].commit
    shown = _code(place(trouble))
    if not base or not commit:
        return shown
    line = f"#L{trouble.line}" if trouble.line else ""
    return f"[{shown}]({base}/blob/{commit.hash}/{quote(trouble.path, errors='surrogateescape')}{line})"


def _commit(commit: Commit, base: str) -> str:
    return f"[`{short_hash(commit)}`]({base}/commit/{commit.hash})" if base else f"`{short_hash(commit)}`"


def _code(text: str) -> str:
    """Text that may hold anything, as a code span: the fence is longer than any in it."""
    line = one_line(text) or " "
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _cut(title: str, lines: list[str]) -> str:
    """The lines that fit, with a note. It comes first, so that the reader need not unfold anything to see it."""
    room = LARGEST - len("\n".join((title, _CUT, *_CLOSE, "")).encode())
    kept = 0
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept += 1
    if kept == len(lines):
        return "\n".join([title, *lines]) + "\n"
    # Else it would hide what is written behind the report.
    close = _CLOSE if any(line.startswith(_OPEN) for line in lines[:kept]) else ()
    return "\n".join([title, _CUT, *lines[:kept], *close]) + "\n"
