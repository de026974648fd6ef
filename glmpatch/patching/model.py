"""The words of the patch engine: outcomes, transforms, patches.

Everything here is immutable, and nothing here touches the disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal, TypeAlias

import msgspec

Backend: TypeAlias = Literal["mpi", "gloo", "ccl"]
Dtype: TypeAlias = Literal["bf16", "fp32"]

_MARKER_START = re.compile(rb"^<{7} [^\r\n]*", re.MULTILINE)
_MARKER_END = re.compile(rb"^>{7} ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know that does not stop the patch.

    Attributes:
        message: One sentence.
        line: 1-based line in the file as it was read, if the notice has a place.
    """

    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """Bytes `[start, end)` of a file become `data`. An insertion has `start == end`."""

    start: int
    end: int
    data: bytes

    def touches(self, other: Replacement) -> bool:
        """Whether the two overlap, or stand at the same place."""
        return self.start <= other.end and other.start <= self.end


@dataclass(frozen=True, slots=True)
class Changed:
    """The file was understood and becomes `data`: the file with the replacements made."""

    data: bytes
    notices: tuple[Notice, ...] = ()
    replacements: tuple[Replacement, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """The file already is what the edit wants. The bytes stay as they are."""

    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """The file is not in this tree, and the edit says that this is fine."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The file is not what the edit understands, so it is left alone.

    Attributes:
        expected: What the transform looks for.
        found: What stands there instead.
        hint: What the user can do.
        line: 1-based line, if the conflict has a place.
    """

    expected: str
    found: str
    hint: str = ""
    line: int | None = None


Outcome: TypeAlias = Changed | AlreadyDone | Absent | Conflict


class Refusal(Exception):
    """Raised inside a transform to give up on a file. Becomes a `Conflict`."""

    def __init__(self, expected: str, found: str, *, hint: str = "", line: int | None = None) -> None:
        super().__init__(expected)
        self.conflict = Conflict(expected, found, hint, line)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a transform asks for: replacements that do not overlap, and notices."""

    replacements: tuple[Replacement, ...] = ()
    notices: tuple[Notice, ...] = ()


def replace_spans(data: bytes, replacements: tuple[Replacement, ...]) -> bytes:
    """Apply the replacements to `data`.

    They are applied from the end backwards, so that the offsets of the others stay true.
    Insertions at the same offset keep their order.

    Raises:
        ValueError: Two replacements overlap. That is a bug in a transform.
    """
    ordered = sorted(replacements, key=lambda replacement: (replacement.start, replacement.end))
    for left, right in pairwise(ordered):
        if right.start < left.end:
            raise ValueError(f"overlapping replacements: {left} and {right}")
    for replacement in reversed(ordered):
        data = data[: replacement.start] + replacement.data + data[replacement.end :]
    return data


class Transform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pure function from the bytes of one file to an `Outcome`.

    The fields of a subclass are the parameters that a patch file may set. A subclass implements
    `rewrite`, and must be idempotent: run on its own result it asks for no replacement. One that never changes
    anything, but sees that something is there, sets `is_guard`.
    """

    name: ClassVar[str]
    is_guard: ClassVar[bool] = False

    def rewrite(self, data: bytes) -> Rewrite:
        """Say what must change in `data`: valid UTF-8, without a byte order mark.

        Raises:
            Refusal: `data` is not fully understood.
        """
        raise NotImplementedError

    def __call__(self, data: bytes) -> Outcome:
        """Run the transform on the bytes of one file, without a byte order mark."""
        try:
            require_utf8(data)
            require_merged(data)
            rewrite = self.rewrite(data)
        except Refusal as refusal:
            return refusal.conflict
        except RecursionError:
            return Conflict("code that a parser can follow", "code that is nested too deeply")
        changed = replace_spans(data, rewrite.replacements)
        if changed == data:
            return AlreadyDone(rewrite.notices)
        return Changed(changed, rewrite.notices, rewrite.replacements)


def require_utf8(data: bytes) -> None:
    """Refuse what is not UTF-8, naming the first line that is not."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refusal(
            "a text file in UTF-8",
            f"byte 0x{data[error.start]:02x} at offset {error.start}",
            hint="convert the file to UTF-8 first",
            line=line,
        ) from error


def require_merged(data: bytes) -> None:
    """Refuse what git left in a file when a merge failed. Some of it would even parse, in a shell script."""
    start, end = _MARKER_START.search(data), _MARKER_END.search(data)
    if start and end and start.start() < end.start():
        raise Refusal(
            "a file without conflict markers",
            start[0].decode(errors="replace"),
            hint="finish the merge first",
            line=data.count(b"\n", 0, start.start()) + 1,
        )


@dataclass(frozen=True, slots=True)
class Edit:
    """One file (or glob) of upstream and the transform to run on it.

    Attributes:
        path: POSIX path relative to the root of upstream; may be a glob of `fnmatch`.
        transform: The transform with its parameters.
        optional: Whether a tree without such a file is fine.
    """

    path: str
    transform: Transform
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Patch:
    """One named reason to change upstream.

    Attributes:
        id: Short name, unique in a series.
        title: One line in the imperative, the subject of the commit.
        why: A paragraph for the reader of the commit.
        drop_when: What must happen so that the patch can go.
        edits: What it does, in order.
    """

    id: str
    title: str
    why: str
    drop_when: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose for the whole series.

    Attributes:
        backend: The `torch.distributed` backend that the patched code asks for.
        dtype: The dtype of the frozen weights and of autocast.
    """

    backend: Backend = "mpi"
    dtype: Dtype = "bf16"
