"""The files that a series is about, at each commit of a repository. No checkout: trees and blobs are read from git."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from glmpatch.checking.model import Commit
from glmpatch.objects import Entry, Objects, Record
from glmpatch.patching.model import Refusal
from glmpatch.patching.plan import LARGEST_FILE, targets, too_large
from glmpatch.patching.series import Series

_SUBMODULE = 0o160000


class CommitTree:
    """The files of a commit, as its tree has them: what a checkout might convert is not converted.

    Args:
        objects: The repository.
        root: The hash of the commit's tree.
    """

    def __init__(self, objects: Objects, root: str) -> None:
        self._objects = objects
        self._root = root

    def paths(self) -> Iterable[str]:
        """The paths of everything that is no folder."""
        # No recursion: a commit may have folders a thousand deep.
        folders = [("", self._root)]
        while folders:
            prefix, tree = folders.pop()
            for name, entry in self._objects.tree(tree).items():
                if stat.S_ISDIR(entry.mode):
                    folders.append((f"{prefix}{name}/", entry.hash))
                else:
                    yield prefix + name

    def find(self, path: str) -> Entry | None:
        """What is at a path; None where nothing is. On the way to it, a link or a submodule counts as what is there."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = self._objects.entry(self._root, "/".join(parts[:depth]))
            if above is not None and not above.is_file and not stat.S_ISDIR(above.mode):
                return above
        return self._objects.entry(self._root, path)

    def read(self, path: str) -> bytes | None:
        """The bytes of a plain file.

        Raises:
            Refusal: There is a link, a folder or a submodule, or the file is too large for source code.
        """
        entry = self.find(path)
        if entry is None:
            return None
        if stat.S_ISLNK(entry.mode):
            raise Refusal("a file inside the tree", "a symbolic link")
        if not entry.is_file:
            raise Refusal("a file", "a submodule" if entry.mode == _SUBMODULE else "a folder")
        data = self._objects.blob(entry.hash, LARGEST_FILE)
        if data is None:
            raise too_large()
        return data


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files that a series is about, at one commit.

    Attributes:
        commit: The commit.
        tree: Its files.
        files: For each target of the series: the path or glob of its edit, the path, and what is there. Two commits
            with equal files have equal plans.
        known: The paths and globs for which the commit or one of its ancestors has a file.
    """

    commit: Commit
    tree: CommitTree
    files: tuple[tuple[str, str, Entry | None], ...]
    known: frozenset[str]


def read_history(objects: Objects, series: Series, tips: Iterable[str]) -> dict[str, Snapshot]:
    """The tips and all their ancestors by their hashes, the newest first, children before parents."""
    found: dict[str, Snapshot] = {}
    for record in reversed(records := objects.log(tips)):
        tree = CommitTree(objects, record.tree)
        files = _files(series, tree)
        known = {pattern for pattern, _, entry in files if entry is not None}
        known.update(*(found[parent].known for parent in record.parents))
        found[record.hash] = Snapshot(_commit(record), tree, files, frozenset(known))
    return {record.hash: found[record.hash] for record in records}


def touches(snapshot: Snapshot, history: Mapping[str, Snapshot]) -> bool:
    """Whether a commit has other files than each of its parents."""
    parents = snapshot.commit.parents
    if not parents:
        return bool(snapshot.known)
    return all(snapshot.files != history[parent].files for parent in parents)


def _files(series: Series, tree: CommitTree) -> tuple[tuple[str, str, Entry | None], ...]:
    found = (target for patch in series.patches for target in targets(patch, tree))
    return tuple((edit.path, path, tree.find(path)) for edit, path in found)


def _commit(record: Record) -> Commit:
    date = datetime.fromtimestamp(record.timestamp, timezone.utc)
    return Commit(record.hash, date, record.subject, record.parents)
