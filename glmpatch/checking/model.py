"""The words of the check: where each patch stands at each commit, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from glmpatch.patching.model import Notice, Patch


class Standing(Enum):
    """How a patch and the files of one commit get on."""

    CLEAN = "clean"
    LANDED = "landed upstream"
    NOT_YET = "not there yet"
    GONE = "gone"
    CONFLICT = "conflict"
    WRONG = "wrong result"

    @property
    def is_drift(self) -> bool:
        """Whether somebody must do something about it."""
        return self in {Standing.CONFLICT, Standing.WRONG}


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of upstream.

    Attributes:
        hash: 40 hexadecimal digits.
        date: When it was committed, with a time zone.
        subject: The first line of its message. As all text of upstream, it may hold anything.
        parents: The hashes of its parents.
    """

    hash: str
    date: datetime
    subject: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a patch is in conflict, or what is wrong with its result.

    Attributes:
        path: The file.
        transform: The name of the transform.
        expected: What it looks for.
        found: What stands there instead.
        hint: What the reader can do.
        line: 1-based line in the file as upstream has it, if there is a place.
        since: The commit that brought it; None where there is no history to look at.
    """

    path: str
    transform: str
    expected: str
    found: str
    hint: str = ""
    line: int | None = None
    since: Commit | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """The bytes of a file before and behind one patch."""

    path: str
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class PatchCheck:
    """One cell of the grid: a patch at a commit.

    Attributes:
        patch: The patch.
        standing: How it stands.
        troubles: Why it is drift; empty where it is not.
        notices: What else was noticed, each with its path.
        changes: What the patch does to each file.
    """

    patch: Patch
    standing: Standing
    troubles: tuple[Trouble, ...] = ()
    notices: tuple[tuple[str, Notice], ...] = ()
    changes: tuple[FileChange, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeCheck:
    """One row of the grid: all patches at a commit, or in a folder.

    Attributes:
        names: What the tree is called: branches, a tag, "pinned", or the path of a folder. Empty for a commit of the
            history that nothing points at.
        commit: The commit; None for a folder.
        patches: One cell for each patch, in the order of the series.
    """

    names: tuple[str, ...]
    commit: Commit | None
    patches: tuple[PatchCheck, ...]

    @property
    def has_drifted(self) -> bool:
        """Whether a patch does not apply."""
        return any(cell.standing.is_drift for cell in self.patches)


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        upstream: The URL or the path that was checked.
        patches: The series.
        trees: The rows, the newest first. Those with a name decide whether there is drift.
        files: The number of distinct files that the patches were tried on.
        computed: How many of them were not in the cache.
    """

    upstream: str
    patches: tuple[Patch, ...]
    trees: tuple[TreeCheck, ...]
    files: int
    computed: int

    @property
    def heads(self) -> tuple[TreeCheck, ...]:
        """The rows that count: what upstream, or the user, has now."""
        return tuple(tree for tree in self.trees if tree.names)

    @property
    def has_drifted(self) -> bool:
        """Whether a patch does not apply to what there is now. What an old commit once was is no drift."""
        return any(tree.has_drifted for tree in self.heads)

    @property
    def landed(self) -> tuple[tuple[Patch, tuple[str, ...]], ...]:
        """The patches that have nothing left to do in some of the heads, and the names of those: they can go there."""
        found: list[tuple[Patch, tuple[str, ...]]] = []
        for number, patch in enumerate(self.patches):
            heads = [tree for tree in self.heads if tree.patches[number].standing is Standing.LANDED]
            if heads:
                found.append((patch, tuple(name for tree in heads for name in tree.names)))
        return tuple(found)
