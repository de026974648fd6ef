"""The check: a folder, the heads of upstream, or its whole history, against a series."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from glmpatch.checking.cache import ResultCache, decode
from glmpatch.checking.examine import Examined
from glmpatch.checking.history import Snapshot, touches
from glmpatch.checking.model import Commit, PatchCheck, Report, TreeCheck, Trouble
from glmpatch.checking.standing import check_patch
from glmpatch.checking.workers import Job, examine_all
from glmpatch.checkout import open_checkout
from glmpatch.patching.model import Transform
from glmpatch.patching.plan import Step, Work, find_work, plan_work
from glmpatch.patching.series import Series
from glmpatch.patching.tree import WorkTree

# A reason that names a line is the same reason when the line has moved.
_LINE = re.compile(r"\bline \d+")
_TroubleKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which commits of a repository to check.

    Attributes:
        upstream: What the repository is called in the report.
        heads: The hashes of those that count, each with its names.
        whole_history: Whether to check those of their ancestors, too, that touch a file of the series.
        since: Of the ancestors, only those committed at this time or later.
    """

    upstream: str
    heads: Mapping[str, tuple[str, ...]]
    whole_history: bool = False
    since: datetime | None = None

    def wants(self, snapshot: Snapshot, history: Mapping[str, Snapshot]) -> bool:
        """Whether a commit is one of them."""
        if snapshot.commit.hash in self.heads:
            return True
        is_recent = self.since is None or snapshot.commit.date >= self.since
        return self.whole_history and is_recent and touches(snapshot, history)


def check_folder(root: Path, series: Series, cache: ResultCache) -> Report:
    """Check a folder of upstream, or of a fork, as it is. Writes nothing to it.

    Raises:
        EnvironmentLacksError: It is a git working tree, and git cannot work in it.
    """
    examiner = _Examiner(cache)
    work = find_work(series, WorkTree(root, open_checkout(root)))
    tree = TreeCheck((str(root),), None, examiner.check(work, known=None))
    return examiner.report(str(root), series, [tree])


def check_commits(
    history: Mapping[str, Snapshot],
    selection: Selection,
    series: Series,
    cache: ResultCache,
    say: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Check commits of a repository.

    Args:
        history: The commits of the selection with all their ancestors, from `read_history`.
        selection: Those to check.
        series: The patches.
        cache: Where results are kept.
        say: Called with what is going on.

    Raises:
        BrokenMirrorError: An object cannot be read.
    """
    rows = [snapshot for snapshot in history.values() if selection.wants(snapshot, history)]
    rows.sort(key=lambda row: row.commit.date, reverse=True)
    checker = _CommitChecker(history, series, _Examiner(cache))
    checker.prepare(rows, say)
    trees = [
        TreeCheck(selection.heads.get(row.commit.hash, ()), row.commit, checker.check_with_origins(row.commit))
        for row in rows
    ]
    return checker.examiner.report(selection.upstream, series, trees)


class _Examiner:
    """Examines each distinct file once."""

    def __init__(self, cache: ResultCache) -> None:
        self._cache = cache
        self._examined: dict[tuple[str, bytes], Examined] = {}
        self._keys: set[str] = set()
        self._computed = 0

    def check(self, work: Work, known: frozenset[str] | None) -> tuple[PatchCheck, ...]:
        """Where each patch stands; `known` as in `check_patch`."""
        self.prepare([work])
        plan = plan_work(work, self._steps)
        now = {path: data for path, (data, _) in work.files.items()}
        broken = {path: self._examined[path, data].broken for path, data in now.items()}
        cells: list[PatchCheck] = []
        for result in plan.patches:
            cells.append(check_patch(result, known, broken, now))
            now.update(result.files)
        return tuple(cells)

    def prepare(self, works: Iterable[Work], say: Callable[[str], None] = lambda _text: None) -> None:
        """Examine the files of all these, several at a time."""
        missing: dict[str, list[Job]] = {}
        for work in works:
            for path, (data, transforms) in work.files.items():
                if (path, data) not in self._examined:
                    key = self._cache.key(path, data, transforms)
                    self._keys.add(key)
                    known = self._cache.load(key, data)
                    if known is None:
                        missing.setdefault(key, []).append((path, data, transforms))
                    else:
                        self._examined[path, data] = known
        if missing:
            say(f"trying the patches on {len(missing)} files")
            # The largest first, so that no process is left alone with them in the end.
            jobs = sorted(missing.items(), key=lambda found: -len(found[1][0][1]))
            for place, result in examine_all([alike[0] for _, alike in jobs]):
                key, alike = jobs[place]
                self._cache.store(key, result)
                for path, data, _ in alike:
                    self._examined[path, data] = decode(result, data)
            self._computed += len(missing)

    def report(self, upstream: str, series: Series, trees: Iterable[TreeCheck]) -> Report:
        """The report, with the counts of what was examined."""
        return Report(upstream, series.patches, tuple(trees), len(self._keys), self._computed)

    def _steps(self, path: str, data: bytes, _transforms: tuple[Transform, ...]) -> tuple[Step, ...]:
        return self._examined[path, data].steps


class _CommitChecker:
    """Checks commits; those with equal files once."""

    def __init__(self, history: Mapping[str, Snapshot], series: Series, examiner: _Examiner) -> None:
        self.examiner = examiner
        self._history = history
        self._series = series
        self._works: dict[object, Work] = {}
        self._checked: dict[object, tuple[PatchCheck, ...]] = {}
        self._origins: dict[tuple[_TroubleKey, str], Commit] = {}

    def prepare(self, rows: Iterable[Snapshot], say: Callable[[str], None]) -> None:
        """Examine the files of all these commits."""
        self.examiner.prepare([self._work(row) for row in rows], say)

    def check_with_origins(self, commit: Commit) -> tuple[PatchCheck, ...]:
        """Where each patch stands at a commit, and since which commit there is trouble."""
        return tuple(
            replace(cell, troubles=tuple(self._with_origin(cell, trouble, commit) for trouble in cell.troubles))
            for cell in self._check(commit.hash)
        )

    def _check(self, commit: str) -> tuple[PatchCheck, ...]:
        snapshot = self._history[commit]
        key = snapshot.files, snapshot.known
        if key not in self._checked:
            self._checked[key] = self.examiner.check(self._work(snapshot), snapshot.known)
        return self._checked[key]

    def _work(self, snapshot: Snapshot) -> Work:
        if snapshot.files not in self._works:
            self._works[snapshot.files] = find_work(self._series, snapshot.tree)
        return self._works[snapshot.files]

    def _with_origin(self, cell: PatchCheck, trouble: Trouble, commit: Commit) -> Trouble:
        return replace(trouble, since=self._origin(_key(cell, trouble), commit.hash))

    def _origin(self, key: _TroubleKey, commit: str) -> Commit:
        """The first commit, by date, from which on the line of ancestors has this trouble without a break."""
        todo = [commit]
        while todo:
            current = todo[-1]
            if (key, current) not in self._origins:
                parents = [parent for parent in self._history[current].commit.parents if self._has(key, parent)]
                waiting = [parent for parent in parents if (key, parent) not in self._origins]
                if waiting:
                    todo += waiting
                    continue
                origins = [self._origins[key, parent] for parent in parents]
                self._origins[key, current] = min(
                    origins, key=lambda origin: origin.date, default=self._history[current].commit
                )
            todo.pop()
        return self._origins[key, commit]

    def _has(self, key: _TroubleKey, commit: str) -> bool:
        return any(key == _key(cell, trouble) for cell in self._check(commit) for trouble in cell.troubles)


def _key(cell: PatchCheck, trouble: Trouble) -> _TroubleKey:
    return cell.patch.id, trouble.path, trouble.transform, _LINE.sub("line", trouble.expected)
