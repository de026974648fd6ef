"""Where a patch stands, from what its edits found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from glmpatch.checking.model import FileChange, PatchCheck, Standing, Trouble
from glmpatch.checking.postconditions import Broken
from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Notice
from glmpatch.patching.plan import NO_FILE, EditResult, PatchResult, State


def check_patch(
    result: PatchResult,
    known: frozenset[str] | None,
    broken: Mapping[str, tuple[tuple[str, Broken], ...]],
    before: Mapping[str, bytes],
) -> PatchCheck:
    """Judge one patch in one tree.

    Args:
        result: What its edits found.
        known: The paths and globs of edits that the tree or one of its ancestors has a file for: what is missing and
            not known is not there yet. None where there are no ancestors to ask.
        broken: What is wrong with the result in each file.
        before: The bytes of each file ahead of this patch.
    """
    too_early = [edit for edit in result.edits if known is not None and edit.pattern not in known]
    conflicts = [
        Trouble(edit.path, edit.transform, outcome.expected, outcome.found, outcome.hint, outcome.line)
        for edit in result.edits
        if isinstance(outcome := edit.outcome, Conflict) and not (outcome == NO_FILE and edit in too_early)
    ]
    troubles = (*conflicts, *_wrongs(result, broken))
    return PatchCheck(
        result.patch,
        _standing(result, too_early, has_conflicts=bool(conflicts), is_wrong=len(troubles) > len(conflicts)),
        troubles,
        tuple(_notices(result)),
        tuple(FileChange(path, before[path], after) for path, after in result.files.items()),
    )


def _standing(result: PatchResult, too_early: list[EditResult], *, has_conflicts: bool, is_wrong: bool) -> Standing:
    if has_conflicts:
        return Standing.CONFLICT
    if is_wrong:
        return Standing.WRONG
    if any(isinstance(edit.outcome, Conflict) for edit in result.edits):
        return Standing.NOT_YET
    if result.state is State.ABSENT:
        return Standing.NOT_YET if len(too_early) == len(result.edits) else Standing.GONE
    # What never changes anything has not landed when it finds what it looks for.
    if result.state is State.APPLIED and not all(edit.transform.is_guard for edit in result.patch.edits):
        return Standing.LANDED
    return Standing.CLEAN


def _wrongs(result: PatchResult, broken: Mapping[str, tuple[tuple[str, Broken], ...]]) -> Iterator[Trouble]:
    """What is wrong with the files of the patch: with its own edits, or with a file that it changes as a whole."""
    own = dict.fromkeys((edit.path, edit.transform) for edit in result.edits)
    for path, transform in own:
        for name, wrong in broken.get(path, ()):
            if name == transform or (not name and path in result.files):
                yield Trouble(
                    path,
                    transform,
                    wrong.expected,
                    wrong.found,
                    "the patch applies, but its result is wrong: please report this bug of glmpatch",
                    wrong.line,
                )


def _notices(result: PatchResult) -> Iterator[tuple[str, Notice]]:
    for edit in result.edits:
        if isinstance(edit.outcome, Changed | AlreadyDone):
            yield from ((edit.path, notice) for notice in edit.outcome.notices)
