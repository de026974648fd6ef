"""The report as workflow commands, which GitHub shows as annotations."""

from __future__ import annotations

import posixpath

from glmpatch.checking.model import Report, TreeCheck
from glmpatch.console import printable
from glmpatch.patching.model import Notice
from glmpatch.reporting.findings import Finding, find_troubles
from glmpatch.reporting.words import one_line, place, tree_title, verdict


def render(report: Report) -> str:
    """The verdict, an error for each trouble of the heads, a warning for each notice, a notice for what landed.

    The verdict comes first, as GitHub shows ten annotations of each kind and no more.
    """
    commands = [_command("error" if report.has_drifted else "notice", "glmpatch check", verdict(report))]
    commands += [_error(finding) for finding in find_troubles(report) if finding.heads]
    for tree in report.heads:
        for cell in tree.patches:
            commands += [_warning(tree, path, notice) for path, notice in cell.notices]
    for patch, names in report.landed:
        where = ", ".join(one_line(name) for name in names)
        text = f"{patch.id} has nothing left to do in {where}: drop it there. {one_line(patch.drop_when)}"
        commands.append(_command("notice", f"{patch.id}: landed", text))
    return "".join(f"{command}\n" for command in dict.fromkeys(commands))


def _error(finding: Finding) -> str:
    trouble = finding.trouble
    parts = {"expected": trouble.expected, "found": trouble.found, "hint": trouble.hint, "since": finding.since}
    said = [f"{name}: {one_line(value)}" for name, value in parts.items() if value]
    text = "\n".join([f"{place(trouble)} ({finding.where()})", *said])
    folder = next((tree for tree in finding.heads if tree.commit is None), None)
    place_in = _file(folder, trouble.path, trouble.line) if folder else {}
    return _command("error", f"{finding.patch.id}: {finding.standing.value}", text, **place_in)


def _warning(tree: TreeCheck, path: str, notice: Notice) -> str:
    if tree.commit is None:
        return _command("warning", "glmpatch check", one_line(notice.message), **_file(tree, path, notice.line))
    return _command("warning", "glmpatch check", f"{tree_title(tree)}: {one_line(path)}: {one_line(notice.message)}")


def _file(folder: TreeCheck, path: str, line: int | None) -> dict[str, str]:
    """Where the annotation goes. Only the file of a folder is one that the workflow has."""
    file = posixpath.normpath(posixpath.join(folder.names[0], path))
    return {"file": printable(file), "line": str(line or 1)}


def _command(kind: str, title: str, text: str, **properties: str) -> str:
    said = ",".join(f"{name}={_property(value)}" for name, value in {**properties, "title": title}.items())
    return f"::{kind} {said}::{_data(text)}"


def _data(text: str) -> str:
    """As the toolkit of GitHub escapes the text of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """As the toolkit of GitHub escapes a property of a command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
