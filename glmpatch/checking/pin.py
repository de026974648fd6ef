"""Moves the pinned commit to the newest one that passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.check import Selection, check_commits
from glmpatch.checking.heads import PINNED
from glmpatch.checking.history import Snapshot, read_history, touches
from glmpatch.checking.model import Commit, Report, Standing, TreeCheck
from glmpatch.errors import UsageError
from glmpatch.mirror import Mirror
from glmpatch.patching.diff import unified_diff
from glmpatch.patching.model import Refusal
from glmpatch.patching.series import Series, UpstreamPin, pin_file
from glmpatch.patching.tree import write_files

_PASSING = {Standing.CLEAN, Standing.LANDED, Standing.GONE}


@dataclass(frozen=True, slots=True)
class NewPin:
    """Where the pinned commit can go.

    Attributes:
        commit: The newest commit that passes; the pinned one where there is none.
        newer: The number of commits that are newer than the pinned one.
        report: The check of the commits from the newest to the pinned one, along first parents.
        passed_over: The number of commits that are newer than `commit`, and do not pass.
        touching: The commits between the pinned one and `commit` that touch a patched file, the newest first.
        diff: What they changed in the patched files, as unified diffs.
    """

    commit: str
    newer: int
    report: Report
    passed_over: int
    touching: tuple[Commit, ...]
    diff: bytes


def find_new_pin(mirror: Mirror, ref: str | None, pin: UpstreamPin, series: Series, cache: ResultCache) -> NewPin:
    """Go back from the newest commit, along first parents, to the first one that passes.

    Args:
        mirror: The repository.
        ref: A branch; None for the default one.
        pin: The pinned commit.
        series: The patches.
        cache: Where results are kept.

    Raises:
        UsageError: There is no such branch.
        EnvironmentLacksError: The pinned commit is not to be had.
    """
    tip = mirror.ensure(ref) if ref else mirror.objects.default()
    history = read_history(mirror.objects, series, [tip, mirror.ensure(pin.commit)])
    pinned = _ancestors(history, pin.commit)
    line = [commit for commit in _first_parents(history, tip) if commit not in pinned]
    names: dict[str, tuple[str, ...]] = {**dict.fromkeys(line, ()), pin.commit: (PINNED,)}
    if line:
        names[tip] = (ref or "newest",)
    report = check_commits(history, Selection(mirror.url, names), series, cache)
    by_commit = {tree.commit.hash: tree for tree in report.trees if tree.commit}
    passed_over = 0
    while passed_over < len(line) and not _passes(by_commit[line[passed_over]], history[line[passed_over]], pin):
        passed_over += 1
    chosen = line[passed_over] if passed_over < len(line) else pin.commit
    between = _ancestors(history, chosen) - pinned
    return NewPin(
        chosen,
        len(line),
        report,
        passed_over,
        tuple(shot.commit for commit, shot in history.items() if commit in between and touches(shot, history)),
        _diff(history[pin.commit], history[chosen]),
    )


def holds(mirror: Mirror, commit: str) -> bool:
    """Whether a branch has a commit. That it can be fetched says less: a server may give what only a fork has."""
    return any(record.hash == commit for record in mirror.objects.log(mirror.objects.heads().values()))


def write_pin(pin: UpstreamPin, commit: str) -> None:
    """Put another commit into the pin file. All else in it stays as it is.

    Raises:
        UsageError: The file does not name the old one exactly once.
        EnvironmentLacksError: The file cannot be written.
    """
    file = pin_file()
    text = file.read_bytes()
    if text.count(pin.commit.encode()) != 1:
        raise UsageError(f"{file} does not name the commit {pin.commit} exactly once")
    write_files(file.parent, {file.name: text.replace(pin.commit.encode(), commit.encode())})


def _passes(tree: TreeCheck, snapshot: Snapshot, pin: UpstreamPin) -> bool:
    return {cell.standing for cell in tree.patches} <= _PASSING and all(map(snapshot.tree.find, pin.marks))


def _first_parents(history: Mapping[str, Snapshot], commit: str) -> list[str]:
    line = [commit]
    while parents := history[line[-1]].commit.parents:
        line.append(parents[0])
    return line


def _ancestors(history: Mapping[str, Snapshot], commit: str) -> set[str]:
    """The commit and all its ancestors."""
    found: set[str] = set()
    todo = [commit]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += history[current].commit.parents
    return found


def _diff(old: Snapshot, new: Snapshot) -> bytes:
    paths = dict.fromkeys(path for snapshot in (old, new) for _, path, entry in snapshot.files if entry)
    return b"".join(unified_diff(path, _read(old, path), _read(new, path)) for path in paths)


def _read(snapshot: Snapshot, path: str) -> bytes:
    try:
        return snapshot.tree.read(path) or b""
    except Refusal:
        return b""
