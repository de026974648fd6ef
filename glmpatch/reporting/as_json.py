"""The report for programs. `templates/check-report.schema.json` describes it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from glmpatch import __version__
from glmpatch.checking.model import Commit, PatchCheck, Report, Standing, TreeCheck, Trouble
from glmpatch.patching.model import Notice


class CommitEntry(msgspec.Struct, frozen=True):
    """A commit of upstream."""

    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
    date: datetime
    subject: str
    parents: list[str]


class TroubleEntry(msgspec.Struct, frozen=True):
    """Why a patch is in conflict, or what is wrong with its result. `since` is the commit that brought it."""

    path: str
    transform: str
    expected: str
    found: str
    hint: str
    line: int | None
    since: CommitEntry | None


class NoticeEntry(msgspec.Struct, frozen=True):
    """What else was noticed in a file."""

    path: str
    line: int | None
    message: str


class CellEntry(msgspec.Struct, frozen=True):
    """A patch at a tree. `changes` are the files that it changes there."""

    patch: str
    standing: Standing
    troubles: list[TroubleEntry]
    notices: list[NoticeEntry]
    changes: list[str]


class TreeEntry(msgspec.Struct, frozen=True):
    """All patches at a commit, or in a folder, which has no commit. What has a name decides about drift."""

    names: list[str]
    commit: CommitEntry | None
    drifted: bool
    patches: list[CellEntry]


class PatchEntry(msgspec.Struct, frozen=True):
    """A patch of the series."""

    id: str
    title: str
    why: str
    drop_when: str


class LandedEntry(msgspec.Struct, frozen=True):
    """A patch that has nothing left to do in the trees of these names."""

    patch: str
    names: list[str]


class Document(msgspec.Struct, frozen=True):
    """What `glmpatch check` found. The number of the schema grows when a field changes its meaning or goes."""

    schema: Literal[1]
    version: str
    upstream: str
    drifted: bool
    files: int
    computed: int
    patches: list[PatchEntry]
    trees: list[TreeEntry]
    landed: list[LandedEntry]


def render(report: Report) -> str:
    """The report as one JSON document."""
    return msgspec.json.format(msgspec.json.encode(_document(report)), indent=2).decode() + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of what `render` makes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Document)}


def _document(report: Report) -> Document:
    return Document(
        schema=1,
        version=__version__,
        upstream=_unicode(report.upstream),
        drifted=report.has_drifted,
        files=report.files,
        computed=report.computed,
        patches=[PatchEntry(patch.id, patch.title, patch.why, patch.drop_when) for patch in report.patches],
        trees=[_tree(tree) for tree in report.trees],
        landed=[LandedEntry(patch.id, [_unicode(name) for name in names]) for patch, names in report.landed],
    )


def _tree(tree: TreeCheck) -> TreeEntry:
    names = [_unicode(name) for name in tree.names]
    return TreeEntry(names, _commit(tree.commit), tree.has_drifted, [_cell(cell) for cell in tree.patches])


def _cell(cell: PatchCheck) -> CellEntry:
    return CellEntry(
        patch=cell.patch.id,
        standing=cell.standing,
        troubles=[_trouble(trouble) for trouble in cell.troubles],
        notices=[_notice(path, notice) for path, notice in cell.notices],
        changes=[_unicode(change.path) for change in cell.changes],
    )


def _trouble(trouble: Trouble) -> TroubleEntry:
    return TroubleEntry(
        path=_unicode(trouble.path),
        transform=trouble.transform,
        expected=_unicode(trouble.expected),
        found=_unicode(trouble.found),
        hint=_unicode(trouble.hint),
        line=trouble.line,
        since=_commit(trouble.since),
    )


def _notice(path: str, notice: Notice) -> NoticeEntry:
    return NoticeEntry(_unicode(path), notice.line, _unicode(notice.message))


def _commit(commit: Commit | None) -> CommitEntry | None:
    if commit is None:
        return None
    return CommitEntry(commit.hash, commit.date, _unicode(commit.subject), list(commit.parents))


def _unicode(text: str) -> str:
    """The text with a replacement character for each surrogate: a byte that was no UTF-8, or an escape of upstream."""
    return re.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
