"""What examining a file came to, kept on disk by everything that it depends on: its bytes, its edits, our code.

A cache may be lost, damaged, full or shared by two runs at once: what cannot be read is examined again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import msgspec

import glmpatch
from glmpatch.checking.examine import Examined
from glmpatch.checking.postconditions import Broken
from glmpatch.errors import GlmpatchError
from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Notice, Outcome, Transform
from glmpatch.patching.plan import Step
from glmpatch.process import stream

_PARSERS = ("libcst", "tree-sitter", "tree-sitter-bash", "packaging", "msgspec")
# What the results depend on, below the package.
_CODE = ("patching/**/*.py", "checking/**/*.py", "process.py")
_KEPT_DAYS = 30


class _StoredStep(msgspec.Struct, array_like=True):
    """A step: its conflict or its notices, and the file behind it where it was changed."""

    conflict: Conflict | None
    notices: tuple[Notice, ...]
    changed: bytes | None


class _Stored(msgspec.Struct, array_like=True):
    steps: list[_StoredStep]
    broken: list[tuple[str, Broken]]


class ResultCache:
    """Results on disk, each in a file of its own.

    Args:
        folder: Where; it is made when it is needed. None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder and folder / code_version()
        if self._folder is not None:
            _forget_old_versions(self._folder)

    def key(self, path: str, data: bytes, transforms: tuple[Transform, ...]) -> str:
        """The name of a result: of the path, only its suffix counts."""
        edits = [(transform.name, msgspec.structs.asdict(transform)) for transform in transforms]
        about = msgspec.json.encode([PurePosixPath(path).suffix, edits], order="deterministic")
        return hashlib.sha256(hashlib.sha256(about).digest() + data).hexdigest()

    def load(self, key: str, data: bytes) -> Examined | None:
        """What is known of the file `data`; None where nothing is, or where that cannot be read."""
        if self._folder is None:
            return None
        try:
            return decode(self._file(self._folder, key).read_bytes(), data)
        except (OSError, ValueError, zlib.error):
            return None

    def store(self, key: str, result: bytes) -> None:
        """Keep an encoded result, if that can be done."""
        if self._folder is None:
            return
        file = self._file(self._folder, key)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(result)
                Path(name).replace(file)
            except BaseException:
                Path(name).unlink()
                raise

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / key[2:]


def encode(examined: Examined) -> bytes:
    """The bytes that are kept. They carry a checksum, that of zlib."""
    steps = [
        _StoredStep(
            step.outcome if isinstance(step.outcome, Conflict) else None,
            step.outcome.notices if isinstance(step.outcome, Changed | AlreadyDone) else (),
            step.after if isinstance(step.outcome, Changed) else None,
        )
        for step in examined.steps
    ]
    return zlib.compress(msgspec.msgpack.encode(_Stored(steps, list(examined.broken))), 1)


def decode(result: bytes, data: bytes) -> Examined:
    """The result from the bytes that are kept and from those of the file.

    Raises:
        zlib.error: They are damaged.
        ValueError: They are something else.
    """
    stored = msgspec.msgpack.decode(zlib.decompress(result), type=_Stored)
    return Examined(tuple(_steps(stored, data)), tuple(stored.broken))


def _steps(stored: _Stored, data: bytes) -> Iterator[Step]:
    for step in stored.steps:
        outcome: Outcome
        if step.conflict is not None:
            outcome = step.conflict
        elif step.changed is None:
            outcome = AlreadyDone(step.notices)
        else:
            data = step.changed
            outcome = Changed(data, step.notices)
        yield Step(outcome, data)


def code_version() -> str:
    """A name for the code that results depend on: ours, the parsers', bash's and Python's."""
    package = Path(glmpatch.__file__).parent
    digest = hashlib.sha256(platform.python_version().encode())
    # Without a bash there are no results that depend on it.
    with suppress(GlmpatchError):
        digest.update("\n".join(stream(["bash", "--version"], env={"LC_ALL": "C"})).encode())
    for name in _PARSERS:
        digest.update(f"{name} {version(name)}\n".encode())
    for file in sorted(file for pattern in _CODE for file in package.glob(pattern)):
        digest.update(b"%b\n" % file.relative_to(package).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old_versions(current: Path) -> None:
    """Remove the results of other code that nobody has used for a month."""
    with suppress(OSError):
        current.mkdir(parents=True, exist_ok=True)
        os.utime(current)
        for folder in current.parent.iterdir():
            if folder != current and folder.stat().st_mtime < time.time() - _KEPT_DAYS * 86_400:
                shutil.rmtree(folder, ignore_errors=True)
