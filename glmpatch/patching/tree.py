"""The trees that a plan reads, and the one that is written: a folder, file by file, each at once or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from glmpatch.errors import EnvironmentLacksError
from glmpatch.patching.model import Refusal
from glmpatch.patching.plan import LARGEST_FILE, too_large

if TYPE_CHECKING:
    # With git in its wake it takes longer to import than all of `launch`.
    from glmpatch.checkout import Checkout

JOURNAL = ".glmpatch"


class WorkTree:
    """The files of a folder.

    Args:
        root: The folder.
        checkout: Its git side, if it has one; then only tracked files count.
    """

    def __init__(self, root: Path, checkout: Checkout | None = None) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._tracked = None if checkout is None else frozenset(checkout.tracked())

    def paths(self) -> Iterable[str]:
        """The files that git tracks; in a plain folder all of them."""
        if self._tracked is not None:
            return self._tracked
        return self._walk()

    def read(self, path: str) -> bytes | None:
        """The bytes of a plain file inside the folder.

        Raises:
            Refusal: There is a link, a folder or a device, a file that git does not track, or one that is too large for
                source code.
        """
        size = self._size(path)
        if size is None:
            return None
        if size > LARGEST_FILE:
            raise too_large()
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise Refusal("a file that can be read", str(error.strerror)) from error

    def holds(self, path: str, data: bytes) -> bool:
        """Whether `data` stands in a plain file at `path`."""
        try:
            return self._size(path) == len(data) and (self.root / path).read_bytes() == data
        except (Refusal, OSError):
            return False

    def _size(self, path: str) -> int | None:
        """The size of a plain file inside the folder; None where there is nothing."""
        file = self.root / path
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise Refusal("a file inside the tree", f"the path {path}")
        if not os.path.lexists(file):
            return None
        if Path(os.path.realpath(file)) != self._real_root / path:
            raise Refusal("a file inside the tree", "a symbolic link", hint="put the file itself there")
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Refusal("a file", "something else, such as a folder")
        if self._tracked is not None and path not in self._tracked:
            raise Refusal("a file that git tracks", "an untracked file", hint="commit the file first, or move it away")
        return found.st_size

    def _walk(self) -> Iterable[str]:
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in {".git", JOURNAL}]
            for name in files:
                yield (Path(folder) / name).relative_to(self.root).as_posix()


class CommittedTree:
    """A working tree as its HEAD has it: what the user changed since is read from git.

    Args:
        tree: The working tree.
        checkout: Its git side.
        dirty: The paths that differ from HEAD.
    """

    def __init__(self, tree: WorkTree, checkout: Checkout, dirty: set[str]) -> None:
        self._tree = tree
        self._checkout = checkout
        self._dirty = dirty

    def paths(self) -> Iterable[str]:
        """The files of HEAD."""
        if not self._dirty:
            return self._tree.paths()
        return self._checkout.committed(self._checkout.head)

    def read(self, path: str) -> bytes | None:
        """The bytes that a checkout of HEAD would put there."""
        return self._checkout.read(self._checkout.head, path) if path in self._dirty else self._tree.read(path)


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Replace existing files of `root`, keeping their modes.

    All new files are staged beside the old ones before the first is put in its place, so that a full disk or a
    read-only folder changes nothing. Killed in between, some files are old and some are new, but none is half-written,
    and a second run finishes the work.

    Raises:
        EnvironmentLacksError: The folder cannot be written.
    """
    waiting = {root / path: data for path, data in files.items()}
    try:
        for file, data in waiting.items():
            with writing(file):
                _stage(file, data, stat.S_IMODE(file.stat().st_mode))
        while waiting:
            file = next(iter(waiting))
            with writing(file):
                _staged(file).replace(file)
            del waiting[file]
    finally:
        for file in waiting:
            with suppress(OSError):
                _staged(file).unlink()


def write_own_file(file: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file of our own, together with the folder that it stands in, at once or not at all.

    Raises:
        EnvironmentLacksError: The folder cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        _stage(file, data, mode)
        _staged(file).replace(file)


def _staged(file: Path) -> Path:
    """Where the new bytes of `file` wait: a name that a second run finds and overwrites."""
    return file.with_name(f".{file.name}.glmpatch-new")


def _stage(file: Path, data: bytes, mode: int) -> None:
    new = _staged(file)
    # Upstream could hold a link of this name: make the file anew, never follow one.
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        os.fchmod(descriptor, mode)


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say in our own words that `file` cannot be written.

    Raises:
        EnvironmentLacksError: What is done in the context raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise EnvironmentLacksError(f"cannot write {file}: {error.strerror}") from error
