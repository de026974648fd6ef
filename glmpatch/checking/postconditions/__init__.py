"""The result of the edits of a file, judged by code that shares nothing with them.

Each transform promises something. Here the promise is looked for again by other parsers: `ast` for Python, small
tokenizers for C++ and for shell, and `bash -n`, `packaging` for requirements. And all that no transform promises to
change is looked for, too: each statement, each word, each comment, the line endings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from glmpatch.checking.postconditions import (
    checkpoint_resume,
    frozen_broadcast,
    mpi_dtypes,
    precision,
    process_group,
    requirements,
    train_flags,
)
from glmpatch.checking.postconditions.autocast import breaks_autocast
from glmpatch.checking.postconditions.broken import Broken, Edited
from glmpatch.checking.postconditions.python import Allowance, PythonSource, find_lost, find_lost_comments
from glmpatch.checking.postconditions.shell import find_new_syntax_error
from glmpatch.patching.model import Transform

__all__ = ["POSTCONDITIONS", "Broken", "broken_in"]

# The transforms have fields of their own, and their modules are not imported here.
Postcondition: TypeAlias = Callable[[Any, Any], Iterator[Broken]]

_PYTHON: dict[str, Postcondition] = {
    "checkpoint-resume": checkpoint_resume.find_broken,
    "cpu-autocast": breaks_autocast,
    "frozen-broadcast": frozen_broadcast.find_broken,
    "precision": precision.find_broken,
    "process-group": process_group.find_broken,
}
_TEXT: dict[str, Postcondition] = {
    "mpi-dtypes": mpi_dtypes.find_broken,
    "requirements": requirements.find_broken,
    "train-flags": train_flags.find_broken,
}
POSTCONDITIONS = _PYTHON | _TEXT
_ALLOWANCES: dict[str, Callable[[PythonSource, Any], Allowance]] = {
    "checkpoint-resume": checkpoint_resume.allowance,
    "cpu-autocast": lambda *_: Allowance(),
    "frozen-broadcast": lambda *_: frozen_broadcast.ALLOWANCE,
    "precision": precision.allowance,
    "process-group": process_group.allowance,
}
_ENDING = re.compile(rb"\r\n|\r|\n")


def broken_in(
    path: str, before: bytes, after: bytes, transforms: Sequence[Transform]
) -> tuple[tuple[str, Broken], ...]:
    """What is wrong with the result of these edits of one file.

    Args:
        path: The file; its suffix says how it is read.
        before: The file as upstream has it.
        after: The file behind all edits.
        transforms: Those that accepted the file. One that is not known here promises nothing, and may change anything.

    Returns:
        Each broken promise, with the name of the transform that gave it: "" where it is about the file as a whole.

    Raises:
        EnvironmentLacksError: There is no bash to read a shell script with, or it was killed.
    """
    found = [("", broken) for broken in _compare_bytes(before, after)]
    try:
        edited = Edited(_text(before), _text(after))
    except UnicodeDecodeError as error:
        line = len(_ENDING.findall(after[: error.start])) + 1
        return (*found, ("", Broken("a text file in UTF-8", f"byte 0x{error.object[error.start]:02x}", line)))
    if path.endswith(".py"):
        found += _judge_python(edited, transforms)
    elif path.endswith(".sh") and (errors := find_new_syntax_error(edited)):
        found += [("", broken) for broken in errors]
    else:
        for transform in transforms:
            judge = _TEXT.get(transform.name, _promise_nothing)
            found += [(transform.name, broken) for broken in judge(edited, transform)]
    return tuple(found)


def _promise_nothing(_edited: object, _transform: object) -> Iterator[Broken]:
    yield from ()


def _text(data: bytes) -> str:
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _compare_bytes(before: bytes, after: bytes) -> Iterator[Broken]:
    """Whether the byte order mark, the line endings and the end of the file are as they were."""
    if before.startswith(codecs.BOM_UTF8) != after.startswith(codecs.BOM_UTF8):
        yield Broken("the byte order mark as it was", "one more or one less", 1)
    endings = set(_ENDING.findall(before))
    if not endings - {b"\r"}:
        endings.add(b"\n")
    for match in _ENDING.finditer(after):
        if match.group() not in endings:
            line = len(_ENDING.findall(after[: match.start()])) + 1
            yield Broken(f"no line endings but {', '.join(map(repr, sorted(endings)))}", repr(match.group()), line)
            break
    if before.removeprefix(codecs.BOM_UTF8) and before.endswith((b"\n", b"\r")) != after.endswith((b"\n", b"\r")):
        yield Broken("the end of the file as it was", "a last newline more or less")


def _judge_python(edited: Edited, transforms: Sequence[Transform]) -> Iterator[tuple[str, Broken]]:
    try:
        before = PythonSource(edited.before)
        after = before if edited.after == edited.before else PythonSource(edited.after)
    except (RecursionError, MemoryError):
        yield "", Broken("a file that Python can parse", "code nested too deeply")
        return
    except (SyntaxError, ValueError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        yield "", Broken("a file that Python can parse", str(error), line)
        return
    try:
        for transform in transforms:
            judge = _PYTHON.get(transform.name, _promise_nothing)
            for broken in judge((before, after), transform):
                yield transform.name, broken
        if before is not after:
            yield from _compare_python(before, after, transforms)
    except RecursionError:
        yield "", Broken("a file that Python can parse", "code nested too deeply")


def _compare_python(
    before: PythonSource, after: PythonSource, transforms: Sequence[Transform]
) -> Iterator[tuple[str, Broken]]:
    error = after.find_compiler_error()
    if error is not None and before.find_compiler_error() is None:
        yield "", Broken("a file that Python can compile", error.msg, error.lineno)
    if all(transform.name in _ALLOWANCES for transform in transforms):
        allowances = [_ALLOWANCES[transform.name](before, transform) for transform in transforms]
        changing = [transform.name for transform in transforms if not transform.is_guard]
        culprit = changing[0] if len(changing) == 1 else ""
        for broken in (*find_lost(before, after, allowances), *find_lost_comments(before, after)):
            yield culprit, broken
