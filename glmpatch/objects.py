"""Reads a bare repository: its branches, its history, the trees and the files of its commits.

One git process answers for all objects: a history of hundreds of commits is read in a blink.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.git_commands import RAW, GitFailedError, hardened_git

_FIELDS = ("%H", "%T", "%P", "%ct", "%s")
_TREE_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{20})", re.DOTALL)
# A name, a hash or an expression such as `main~2`. No option, no range, no `:/text`.
_REF = re.compile(r"(?![-+^])[^\x00-\x20\x7f:*?\[\\]+")
# The end of the year 9999. No calendar shows a later date, but a commit can claim one.
_LATEST = 253402300799


class BrokenMirrorError(EnvironmentLacksError):
    """The repository lacks an object, or holds one that cannot be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A commit.

    Attributes:
        hash: 40 hexadecimal digits.
        tree: The hash of its root tree.
        parents: The hashes of its parents.
        timestamp: When it was committed, in seconds since 1970, UTC.
        subject: The first paragraph of its message, on one line. What is not text is replaced.
    """

    hash: str
    tree: str
    parents: tuple[str, ...]
    timestamp: int
    subject: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tree has under a name: its mode, as git writes it in octal, and the hash of the object."""

    mode: int
    hash: str

    @property
    def is_file(self) -> bool:
        """Whether it is an ordinary file: no folder, link or submodule."""
        return stat.S_ISREG(self.mode)


class Objects:
    """The objects of a bare repository. Every method raises `BrokenMirrorError` where they cannot be read.

    To be closed in the end, or git processes stay behind. A closed one that is asked again starts new ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._git = hardened_git(folder)
        # The folder is named, so that git does not look for a repository in those above it when this one is broken.
        self._git.update_environment(GIT_DIR=str(folder), GIT_NO_REPLACE_OBJECTS="1")
        self._trees: dict[str, Mapping[str, Entry]] = {}

    def check(self) -> None:
        """See that all that the branches and tags need is there. What is in the files is not read."""
        try:
            _, _, said = self._git.rev_list("--quiet", "--objects", "--all", with_extended_output=True)
        except GitFailedError as error:
            raise self._broken(error.message) from error
        # A damaged pack that it could do without. Complaints at every object would block a reader in the end.
        if "error: " in said:
            raise self._broken(said.strip())

    def heads(self) -> dict[str, str]:
        """The hash of the commit of each branch. Bytes of a name that are not UTF-8 are spelled out, in hexadecimal."""
        output = self._run("for_each_ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads")
        lines = output.decode(errors="backslashreplace").split("\n")[:-1]
        return {name: commit for commit, _, name in (line.partition(" ") for line in lines)}

    def default(self) -> str:
        """The commit that HEAD is at; where HEAD leads nowhere, that of the branch with the newest commit.

        Raises:
            EnvironmentLacksError: There is no branch.
        """
        newest = self._run("for_each_ref", "--sort=-committerdate", "--format=%(objectname)", "refs/heads").split()[:1]
        for ref in ("HEAD", *(commit.decode() for commit in newest)):
            commit = self._find(ref)
            if commit:
                return commit
        raise EnvironmentLacksError(f"{self._folder} has no branch")

    def resolve(self, ref: str) -> str:
        """The full hash of the commit that a branch, a tag or a hash, which may be short, means.

        Raises:
            UsageError: There is no such commit, or `ref` is something else.
        """
        if _REF.fullmatch(ref) and ".." not in ref:
            for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref):
                commit = self._find(name)
                if commit:
                    return commit
        raise UsageError(f"there is no commit, branch or tag {ref!r}", hint="name one that upstream has")

    def log(self, tips: Iterable[str]) -> list[Record]:
        """The commits with these hashes and all their ancestors, children before parents."""
        tips = list(tips)
        if not tips:
            return []  # git would take HEAD
        form = "%x00".join(_FIELDS)
        output = self._run("log", "-z", "--topo-order", "--encoding=UTF-8", f"--format={form}", *tips, "--")
        fields = output.decode(errors="replace").split("\0")
        rows = zip(*(fields[number :: len(_FIELDS)] for number in range(len(_FIELDS))), strict=False)
        return [
            # A commit whose header makes no sense has no date.
            Record(commit, tree, tuple(parents.split()), min(int(date or 0), _LATEST), subject)
            for commit, tree, parents, date, subject in rows
        ]

    def tree(self, tree: str) -> Mapping[str, Entry]:
        """What is directly in the tree with this hash, by name. Bytes that are not UTF-8 are kept as surrogates."""
        if tree not in self._trees:
            data = self._read(tree, "tree")
            matches = list(_TREE_ENTRY.finditer(data))
            if sum(len(match[0]) for match in matches) != len(data):
                raise self._broken(f"the tree {tree} is damaged")
            self._trees[tree] = {os.fsdecode(match[2]): Entry(int(match[1], 8), match[3].hex()) for match in matches}
        return self._trees[tree]

    def entry(self, root: str, path: str) -> Entry | None:
        """What is at a POSIX path below the tree with the hash `root`; None where there is nothing."""
        found: Entry | None = Entry(stat.S_IFDIR, root)
        for name in path.split("/"):
            if found is None or not stat.S_ISDIR(found.mode):
                return None
            found = self.tree(found.hash).get(name)
        return found

    def blob(self, blob: str, limit: int) -> bytes | None:
        """The bytes of the file with this hash; None, and nothing is loaded, if there are more than `limit`."""
        try:
            _, _, size = self._git.get_object_header(blob)
        except (OSError, ValueError) as error:
            raise self._broken(f"no object {blob}") from error
        return self._read(blob, "blob") if size <= limit else None

    def close(self) -> None:
        """End the git processes."""
        self._git.clear_cache()

    def _find(self, ref: str) -> str | None:
        try:
            return str(self._git.rev_parse("--verify", "--quiet", f"{ref}^{{commit}}"))
        except GitFailedError:
            return None

    def _run(self, command: str, *arguments: str) -> bytes:
        try:
            return bytes(getattr(self._git, command)(*arguments, **RAW))
        except GitFailedError as error:
            raise self._broken(error.message) from error

    def _read(self, name: str, kind: str) -> bytes:
        found: Any  # bytes, while GitPython says that it is text
        try:
            _, found, size, data = self._git.get_object_data(name)
        except (OSError, ValueError) as error:
            raise self._broken(f"no object {name}") from error
        # A damaged one ends early.
        if found != kind.encode() or len(data) != size:
            raise self._broken(f"the {kind} {name} cannot be read")
        return data

    def _broken(self, reason: str) -> BrokenMirrorError:
        self.close()  # its answers may be out of step with the questions
        return BrokenMirrorError(f"{self._folder} is broken: {reason}", hint=f"remove {self._folder}")
