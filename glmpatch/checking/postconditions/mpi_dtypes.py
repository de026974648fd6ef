"""What `mpi-dtypes` promises: no collective asks the maps by itself, and undone it is upstream's code again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from glmpatch.checking.postconditions.broken import Broken, Edited, first_line

_TOKEN = re.compile(
    r'//(?:\\\n|[^\n])*|/\*.*?(?:\*/|\Z)|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    r"|^[ \t]*\#(?:\\\n|[^\n])*|\d(?:'?[\w.])*|\w+|::|->|\S",
    re.MULTILINE | re.DOTALL,
)
_MARK = "// By glmpatch."
_MAPS = ("mpiDatatype", "mpiOp")
_NEW_TYPES = {"BFloat16", "Half", "Bool"}


class _Token(NamedTuple):
    """A word, a sign, a literal, a directive or a comment, and the line where it starts."""

    text: str
    line: int

    @property
    def is_comment(self) -> bool:
        return self.text.startswith(("//", "/*"))


class _Source(NamedTuple):
    """A file without the helpers.

    Attributes:
        code: Its tokens, without comments.
        comments: Its comments.
        helpers: How many tokens stand above the helpers, or None where there are none.
    """

    code: list[_Token]
    comments: list[_Token]
    helpers: int | None


def find_broken(edited: Edited, _transform: object) -> Iterator[Broken]:
    """Find helpers that are missing, a collective that does without them, and anything else that changed."""
    before, after = _read(edited.before), _read(edited.after)
    if after.helpers is None:
        # Else upstream has the types itself, and nothing was changed.
        if not {token.text.removeprefix("k") for token in after.code} >= _NEW_TYPES:
            yield Broken("the namespace glmpatch with the helpers", "none")
    else:
        for index, token in enumerate(after.code):
            if token.text in _MAPS and (
                index >= after.helpers or _texts(after.code[index + 1 : index + 3]) == [".", "at"]
            ):
                yield Broken("collectives that ask the helpers, not the maps", token.text, token.line)
    yield from _broken_operations(after.code)
    yield from _compare(_undo(before.code), _undo(after.code), "the code of upstream as it was")
    yield from _compare(before.comments, after.comments, "the comments as they were")


def _read(text: str) -> _Source:
    code: list[_Token] = []
    comments: list[_Token] = []
    helpers, depth = None, 0
    for token in _tokens(text):
        if depth or _texts(code[-2:]) == ["namespace", "glmpatch"]:
            if not depth:
                del code[-2:]
                helpers = len(code)
            depth += (token.text == "{") - (token.text == "}")
        elif token.is_comment:
            if not token.text.startswith(_MARK):
                comments.append(token)
        else:
            code.append(token)
    return _Source(code, comments, helpers)


def _tokens(text: str) -> Iterator[_Token]:
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        yield _Token(match.group(), line)


def _texts(tokens: list[_Token]) -> list[str]:
    return [token.text for token in tokens]


def _undo(code: list[_Token]) -> list[_Token]:
    """The tokens with the maps in the place of the helpers."""
    undone: list[_Token] = []
    left_out = range(0)
    for index, token in enumerate(code):
        called = _called(code, index)
        if called == "opFor":
            left_out = range(_second_argument(code, index + 3), _end(code, index + 3))
        if called:
            name = "mpiOp" if called == "opFor" else "mpiDatatype"
            undone += [_Token(part, token.line) for part in (name, ".", "at")]
        elif index not in left_out and not any(_called(code, index - back) for back in (1, 2)):
            undone.append(token)
    return undone


def _called(code: list[_Token], index: int) -> str:
    """The helper that is called at `index`, if one is."""
    name = _texts(code[index : index + 3]) if index >= 0 else []
    return name[2] if name[:2] == ["glmpatch", "::"] and name[2:] in (["opFor"], ["datatypeOf"]) else ""


def _end(code: list[_Token], start: int) -> int:
    """Where the parenthesis closes that opens at `start`."""
    depth = 0
    for index in range(start, len(code)):
        depth += (code[index].text in "([{") - (code[index].text in ")]}")
        if depth == 0:
            return index
    return len(code)


def _second_argument(code: list[_Token], start: int) -> int:
    """Where the comma is that ends the first argument."""
    end = _end(code, start)
    index = start + 1
    while index < end and code[index].text != ",":
        index = _end(code, index) + 1 if code[index].text in "([{" else index + 1
    return index


def _broken_operations(code: list[_Token]) -> Iterator[Broken]:
    """Find an operation for another dtype than that of a datatype in the same statement."""
    dtypes: set[str] = set()
    operations: list[_Token] = []
    for index, token in enumerate(code):
        called = _called(code, index)
        if called == "datatypeOf":
            dtypes.add("".join(_texts(code[index + 4 : _end(code, index + 3)])))
        elif called == "opFor":
            dtype = code[_second_argument(code, index + 3) + 1 : _end(code, index + 3)]
            operations.append(_Token("".join(_texts(dtype)), token.line))
        elif token.text == ";":
            for operation in operations:
                if operation.text not in dtypes:
                    yield Broken("the operation for the dtype of the datatype", operation.text, operation.line)
            dtypes, operations = set(), []


def _compare(before: list[_Token], after: list[_Token], expected: str) -> Iterator[Broken]:
    for old, new in zip(before, after, strict=False):
        if old.text != new.text:
            yield Broken(expected, first_line(new.text), new.line)
            return
    if len(before) != len(after):
        yield Broken(expected, "more or less of it")
