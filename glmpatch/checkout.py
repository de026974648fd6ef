"""A working tree of git: what is tracked, what is changed, what commits hold, and how new ones are made."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from glmpatch.errors import EnvironmentLacksError, TreeError
from glmpatch.git_commands import RAW, GitFailedError, hardened_git, split_fields

# Where new commits wait until HEAD moves. One name, so that a second run takes over what a killed one has left.
_WAITING = "refs/worktree/glmpatch"
_FALLBACK_IDENTITY = "glmpatch <glmpatch@localhost>"
# The attributes under which git keeps the line endings of a file that are the same in its index and working tree.
_KEEPING_ENDINGS = {"attr/", "attr/text=auto"}


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit to be made: its message, and the bytes in the working tree of each file that it changes."""

    message: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class TrailedCommit:
    """A commit whose message carries a trailer, and the values of that trailer."""

    commit: str
    values: tuple[str, ...]


class Checkout:
    """A working tree of a git repository: an ordinary clone, a linked worktree or a submodule.

    Attributes:
        root: The top folder of the working tree.
        head: The hash of the commit that is checked out.
        private_folder: A folder for our own data, inside the git folder. It may not exist yet.
        exclude_file: Where git reads which files it is not to show, of this repository alone. It may not exist yet.

    Raises:
        TreeError: There is no commit yet.
        EnvironmentLacksError: There is no git, or it refuses this folder, or takes another one for the top.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._git = hardened_git(root)
        try:
            top, own, exclude, head = self._git.rev_parse(
                *("--show-toplevel", "--git-path", "glmpatch", "--git-path", "info/exclude", "HEAD")
            ).split("\n")
        except GitFailedError as error:
            if "ambiguous argument 'HEAD'" in error.message:
                raise TreeError(f"{root} has no commit yet", hint="commit its files first") from error
            is_foreign = "dubious ownership" in error.message
            trust = f"if you trust it: git config --global --add safe.directory {shlex.quote(str(root.resolve()))}"
            raise EnvironmentLacksError(
                f"git cannot work in {root}: {error.message}", hint=trust if is_foreign else ""
            ) from error
        if not Path(top).samefile(root):
            raise EnvironmentLacksError(
                f"git takes {top} for the working tree of {root}", hint=f"mend or remove {root / '.git'}"
            )
        self.head = head
        self.private_folder = root / own
        self.exclude_file = root / exclude

    def tracked(self) -> list[str]:
        """The POSIX paths of all files that git tracks here."""
        return split_fields(self._git.ls_files("-z"))

    def committed(self, commit: str) -> list[str]:
        """The POSIX paths of all files of a commit."""
        return split_fields(self._git.ls_tree("-r", "-z", "--name-only", "--full-tree", commit))

    def dirty(self) -> set[str]:
        """The tracked files that differ from HEAD, in the working tree or in the index."""
        status = self._git.status(
            "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=all"
        )
        return {entry[3:] for entry in split_fields(status)}

    def read(self, commit: str, path: str) -> bytes | None:
        """The bytes that a checkout of `commit` puts at `path`, or None where it has no such file."""
        try:
            return bytes(self._git.cat_file("--filters", f"{commit}:{path}", **RAW))
        except GitFailedError:
            return None

    def changed_paths(self, commit: str) -> list[str]:
        """The paths in which a commit differs from its parent; none for a merge."""
        return split_fields(
            self._git.diff_tree("--root", "--no-commit-id", "-r", "-z", "--no-renames", "--name-only", commit)
        )

    def trailed(self, trailer: str) -> list[TrailedCommit]:
        """The commits behind HEAD that carry `trailer`, newest first."""
        output = str(
            self._git.log(
                "--basic-regexp",
                f"--grep=^{trailer}: ",
                f"--format=%H%x00%(trailers:key={trailer},valueonly,separator=%x00)%x1e",
            )
        )
        found: list[TrailedCommit] = []
        for record in output.split("\x1e"):
            commit, *values = record.strip("\n").split("\0")
            if any(values):
                found.append(TrailedCommit(commit, tuple(values)))
        return found

    def record(self, commits: Sequence[NewCommit]) -> list[str]:
        """Create the commits, one upon the other, upon HEAD. HEAD, index and working tree stay as they are.

        Returns:
            The hashes, in order.
        """
        try:
            with _spooled(self._import_stream(commits)) as commands, tempfile.TemporaryDirectory() as folder:
                marks = Path(folder, "marks")
                self._git.fast_import("--quiet", "--force", f"--export-marks={marks}", istream=commands)
                hashes = dict(line.split() for line in marks.read_text().splitlines())
            return [hashes[f":{mark}"] for mark, _ in enumerate(commits, start=1)]
        finally:
            self._git.update_ref("-d", _WAITING)

    def move_head(self, commit: str, paths: Sequence[str]) -> None:
        """Make `commit` the checked-out commit; the working tree must already hold its files at `paths`.

        The index follows at `paths` alone: what the user has staged elsewhere stays staged. HEAD moves last, and only
        if nobody else has moved it.
        """
        self._git.reset("--quiet", commit, "--", *paths)
        self._git.update_ref("-m", "glmpatch", "HEAD", commit, self.head)
        self.head = commit

    def _import_stream(self, commits: Sequence[NewCommit]) -> bytes:
        """The commits in the language of `git fast-import`: one process, whatever their number."""
        identity = self._identity()
        modes = self._modes(sorted({path for commit in commits for path in commit.files}))
        commands = bytearray()
        for mark, commit in enumerate(commits, start=1):
            commands += f"commit {_WAITING}\nmark :{mark}\nauthor {identity}\ncommitter {identity}\n".encode()
            commands += _data(commit.message.encode())
            if mark == 1:
                commands += f"from {self.head}\n".encode()
            for path, data in commit.files.items():
                mode, verbatim = modes[path]
                blob = "inline" if verbatim else self._clean(path, data)
                commands += f"M {mode} {blob} ".encode() + _quoted(path) + b"\n"
                if verbatim:
                    commands += _data(data)
        return bytes(commands)

    def _modes(self, paths: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """For each path its mode, and whether git stores the bytes of the working tree as they are."""
        attributes = split_fields(self._git.check_attr("-z", "filter", "ident", "working-tree-encoding", "--", *paths))
        filtered = {
            path for path, value in zip(attributes[0::3], attributes[2::3], strict=True) if value != "unspecified"
        }
        modes: dict[str, tuple[str, bool]] = {}
        for entry in split_fields(self._git.ls_files("-z", "--stage", "--eol", "--", *paths)):
            staged, endings, path = entry.split("\t", 2)
            in_index, in_worktree, attribute, *_ = endings.split()
            keeps_endings = in_index[2:] == in_worktree[2:] and attribute in _KEEPING_ENDINGS
            modes[path] = staged.partition(" ")[0], keeps_endings and path not in filtered
        return modes

    def _clean(self, path: str, data: bytes) -> str:
        """Store `data` as `git add` would, with its filters and line endings; the hash of the blob."""
        with _spooled(data) as content:
            return str(self._git.hash_object("-w", "--stdin", "--path", path, istream=content))

    def _identity(self) -> str:
        """The user's identity and the time, as git writes it; our own where the user has none."""
        try:
            return str(self._git.var("GIT_COMMITTER_IDENT"))
        except GitFailedError:
            return f"{_FALLBACK_IDENTITY} {int(time.time())} +0000"


def open_checkout(root: Path) -> Checkout | None:
    """The git working tree whose top folder is `root`; None where it is a plain folder.

    A plain folder inside somebody's repository is a plain folder.
    """
    return Checkout(root) if (root / ".git").exists() else None


def merge(current: bytes, base: bytes, other: bytes) -> bytes | None:
    """Three-way merge of the bytes of one file; None where the changes meet.

    Raises:
        EnvironmentLacksError: There is no git.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ("current", "base", "other")
        for name, data in zip(names, (current, base, other), strict=True):
            Path(folder, name).write_bytes(data)
        git = hardened_git(Path(folder))
        try:
            return bytes(git.merge_file("-p", *names, **RAW))
        except GitFailedError:
            return None


@contextmanager
def _spooled(data: bytes) -> Iterator[BinaryIO]:
    """`data` as a file that a child can read from: GitPython takes no bytes as input."""
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            file.write(data)
        except OSError as error:
            raise EnvironmentLacksError(f"cannot write to {tempfile.gettempdir()}: {error.strerror}") from error
        file.seek(0)
        yield file


def _data(data: bytes) -> bytes:
    return f"data {len(data)}\n".encode() + data + b"\n"


def _quoted(path: str) -> bytes:
    """A path as `git fast-import` reads it, whatever is in it."""
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
