"""The plan: every edit's outcome for one tree, and the resulting bytes.

Pure: a plan reads through a `Tree` and writes nothing. `apply`, `diff`, `status` and every check share it.
"""

from __future__ import annotations

import codecs
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from glmpatch.patching.model import (
    Absent,
    AlreadyDone,
    Changed,
    Conflict,
    Edit,
    Outcome,
    Patch,
    Refusal,
    Replacement,
    Transform,
    replace_spans,
)
from glmpatch.patching.series import Series


class Tree(Protocol):
    """The files of upstream at one state: a folder, or a commit."""

    def read(self, path: str) -> bytes | None:
        """The bytes of the file at a POSIX path, or None where there is none.

        Raises:
            Refusal: There is something, but not a plain file inside the tree.
        """

    def paths(self) -> Iterable[str]:
        """The POSIX paths of all files, for globs."""


class State(Enum):
    """Where a patch stands in a tree."""

    PENDING = "to apply"
    APPLIED = "applied"
    PARTIAL = "partly applied"
    CONFLICT = "conflict"
    ABSENT = "nothing here"


@dataclass(frozen=True, slots=True)
class EditResult:
    """What one edit found in one file.

    Attributes:
        path: The file; for a glob that matched nothing, the glob.
        transform: The name of the transform.
        outcome: What it found.
    """

    path: str
    transform: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class PatchResult:
    """The results of a patch's edits, and the files as they are behind it.

    Attributes:
        patch: The patch.
        edits: One result for each file of each edit.
        files: The new bytes of the files that this patch changes.
    """

    patch: Patch
    edits: tuple[EditResult, ...]
    files: dict[str, bytes]

    @property
    def state(self) -> State:
        """Where the patch stands as a whole."""
        outcomes = {type(result.outcome) for result in self.edits}
        if Conflict in outcomes:
            return State.CONFLICT
        if Changed in outcomes:
            return State.PARTIAL if AlreadyDone in outcomes else State.PENDING
        return State.APPLIED if AlreadyDone in outcomes else State.ABSENT


@dataclass(frozen=True, slots=True)
class Plan:
    """What a series would do to a tree.

    Attributes:
        patches: One result for each patch, in order.
        before: The bytes of each file that a patch changes, as it was read.
    """

    patches: tuple[PatchResult, ...]
    before: dict[str, bytes]

    @property
    def edits(self) -> tuple[EditResult, ...]:
        """The results of all edits, in order."""
        return tuple(edit for result in self.patches for edit in result.edits)

    @property
    def conflicts(self) -> tuple[EditResult, ...]:
        """The results that forbid writing anything."""
        return tuple(edit for edit in self.edits if isinstance(edit.outcome, Conflict))

    @property
    def done(self) -> bool:
        """Whether the tree already is what the series makes of it."""
        return not self.after and not self.conflicts

    @property
    def after(self) -> dict[str, bytes]:
        """The bytes of each file that a patch changes, behind the last patch."""
        files: dict[str, bytes] = {}
        for result in self.patches:
            files.update(result.files)
        return files


def make_plan(series: Series, tree: Tree) -> Plan:
    """Run every edit of every patch on `tree`.

    Each edit is planned on the file as the user has it, so that the lines in its messages are those of that file. Only
    an edit that touches what an earlier one changed is planned on the result of the earlier one.
    """
    planner = _Planner(tree)
    results = tuple(planner.run(patch) for patch in series.patches)
    return Plan(results, {path: planner.files[path].read for result in results for path in result.files})


class _File:
    """A file on its way through the edits.

    Attributes:
        read: Its bytes as they were read.
    """

    def __init__(self, data: bytes) -> None:
        self.read = data
        self._bom = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        self._base = data.removeprefix(self._bom)
        self._asked: tuple[Replacement, ...] = ()

    @property
    def now(self) -> bytes:
        """Its bytes behind the edits so far."""
        return self._bom + replace_spans(self._base, self._asked)

    def run(self, transform: Transform) -> Outcome:
        """Edit the file."""
        outcome = transform(self._base)
        if self._asked and (not isinstance(outcome, Changed) or self._is_touched(outcome.replacements)):
            behind = transform(replace_spans(self._base, self._asked))
            if isinstance(behind, Changed):
                self._base, self._asked = behind.data, ()
            return outcome if isinstance(outcome, Conflict) and isinstance(behind, Conflict) else behind
        if isinstance(outcome, Changed):
            self._asked += outcome.replacements
        return outcome

    def _is_touched(self, replacements: tuple[Replacement, ...]) -> bool:
        return any(new.touches(old) for new in replacements for old in self._asked)


class _Planner:
    """The files of a tree, changing as the patches of a series pass."""

    def __init__(self, tree: Tree) -> None:
        self.files: dict[str, _File] = {}
        self._tree = tree

    def run(self, patch: Patch) -> PatchResult:
        changed: dict[str, bytes] = {}
        results: list[EditResult] = []
        for edit in patch.edits:
            for path in self._resolve(edit.path):
                outcome = self._outcome(edit, path)
                if isinstance(outcome, Changed):
                    changed[path] = self.files[path].now
                results.append(EditResult(path, edit.transform.name, outcome))
        return PatchResult(patch, tuple(results), changed)

    def _resolve(self, pattern: str) -> list[str]:
        if not any(sign in pattern for sign in "*?["):
            return [pattern]
        folder_depth = pattern.count("/")
        matches = [
            path
            for path in self._tree.paths()
            if path.count("/") == folder_depth and fnmatch.fnmatchcase(path, pattern)
        ]
        return sorted(matches) or [pattern]

    def _outcome(self, edit: Edit, path: str) -> Outcome:
        if path not in self.files:
            try:
                data = self._tree.read(path)
            except Refusal as refusal:
                return refusal.conflict
            if data is None:
                missing = Conflict("a file of this name", "no such file", hint="is this the folder of ChatGLM-6B?")
                return Absent() if edit.optional else missing
            self.files[path] = _File(data)
        return self.files[path].run(edit.transform)
