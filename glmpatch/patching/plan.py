"""The plan: every edit's outcome for one tree, and the resulting bytes.

Pure: a plan reads through a `Tree` and writes nothing. `apply`, `diff`, `status` and every check share it.
"""

from __future__ import annotations

import codecs
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

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

# What a required file that is not there comes to.
NO_FILE = Conflict("a file of this name", "no such file", hint="is this the folder of ChatGLM-6B?")
# Twice the largest file of upstream that is patched. One of this size takes minutes and gigabytes at worst.
LARGEST_FILE = 400_000


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
        pattern: The path or glob of the edit.
    """

    path: str
    transform: str
    outcome: Outcome
    pattern: str


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


@dataclass(frozen=True, slots=True)
class Step:
    """What one edit of a file found, and the whole file behind it."""

    outcome: Outcome
    after: bytes


# Runs the edits of one file, by its path, its bytes and the transforms: `edit_file`, or something that remembers.
EditFile: TypeAlias = Callable[[str, bytes, tuple[Transform, ...]], tuple[Step, ...]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a series has to do in a tree: the plan before anything is transformed.

    Attributes:
        targets: For each patch, its edits, each with the path of a file; a glob that matched nothing keeps its edit.
        files: For each file that is there: its bytes, and the transforms that will run on it, in order.
        refused: For each path where something else than a plain file is: what.
    """

    targets: tuple[tuple[Patch, tuple[tuple[Edit, str], ...]], ...]
    files: dict[str, tuple[bytes, tuple[Transform, ...]]]
    refused: dict[str, Conflict]


def make_plan(series: Series, tree: Tree) -> Plan:
    """Run every edit of every patch on `tree`.

    Each edit is planned on the file as the user has it, so that the lines in its messages are those of that file. Only
    an edit that touches what an earlier one changed is planned on the result of the earlier one.
    """
    return plan_work(find_work(series, tree), edit_file)


def find_work(series: Series, tree: Tree) -> Work:
    """Find and read the files that the series is about."""
    work = Work(tuple((patch, tuple(targets(patch, tree))) for patch in series.patches), {}, {})
    for edit, path in (target for _, found in work.targets for target in found):
        if path in work.refused:
            continue
        if path not in work.files:
            try:
                data = tree.read(path)
                if data is None:
                    continue
                if len(data) > LARGEST_FILE:
                    raise too_large()
            except Refusal as refusal:
                work.refused[path] = refusal.conflict
                continue
            work.files[path] = data, ()
        data, transforms = work.files[path]
        work.files[path] = data, (*transforms, edit.transform)
    return work


def targets(patch: Patch, tree: Tree) -> Iterator[tuple[Edit, str]]:
    """The edits of a patch with the path of each of their files, whether it is there or not."""
    for edit in patch.edits:
        for path in _resolve(edit.path, tree):
            yield edit, path


def plan_work(work: Work, edit: EditFile) -> Plan:
    """Run the edits."""
    steps = {path: iter(edit(path, data, transforms)) for path, (data, transforms) in work.files.items()}
    results: list[PatchResult] = []
    for patch, found in work.targets:
        changed: dict[str, bytes] = {}
        outcomes: list[EditResult] = []
        for target, path in found:
            if path in steps:
                step = next(steps[path])
                outcome = step.outcome
                if isinstance(outcome, Changed):
                    changed[path] = step.after
            else:
                outcome = work.refused.get(path) or (Absent() if target.optional else NO_FILE)
            outcomes.append(EditResult(path, target.transform.name, outcome, target.path))
        results.append(PatchResult(patch, tuple(outcomes), changed))
    return Plan(tuple(results), {path: work.files[path][0] for result in results for path in result.files})


def edit_file(path: str, data: bytes, transforms: tuple[Transform, ...]) -> tuple[Step, ...]:  # noqa: ARG001 - EditFile
    """Run the edits of one file."""
    file = _File(data)
    return tuple(file.run(transform) for transform in transforms)


def too_large() -> Refusal:
    """To be raised for a file that a parser would take many minutes and gigabytes for."""
    return Refusal(f"source code, of no more than {LARGEST_FILE:,} bytes", "a larger file")


class _File:
    """A file on its way through the edits."""

    def __init__(self, data: bytes) -> None:
        self._bom = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        self._base = data.removeprefix(self._bom)
        self._asked: tuple[Replacement, ...] = ()

    def run(self, transform: Transform) -> Step:
        """Edit the file."""
        outcome = self._outcome(transform)
        return Step(outcome, self._bom + replace_spans(self._base, self._asked))

    def _outcome(self, transform: Transform) -> Outcome:
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


def _resolve(pattern: str, tree: Tree) -> list[str]:
    if not any(sign in pattern for sign in "*?["):
        return [pattern]
    folder_depth = pattern.count("/")
    matches = [path for path in tree.paths() if path.count("/") == folder_depth and fnmatch.fnmatchcase(path, pattern)]
    return sorted(matches) or [pattern]
