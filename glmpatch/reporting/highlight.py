"""A unified diff as HTML, with the colours of its language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape
from pygments.lexer import Lexer
from pygments.lexers.python import PythonLexer
from pygments.lexers.shell import BashLexer
from pygments.token import Token, _TokenType

from glmpatch.checking.model import FileChange
from glmpatch.console import printable
from glmpatch.patching.diff import unified_diff
from glmpatch.reporting.words import count

_LONGEST_LINE = 500
_MOST_LINES = 1_000
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)")
_LEXERS: dict[str, Lexer] = {
    "py": PythonLexer(stripnl=False, ensurenl=False),
    "sh": BashLexer(stripnl=False, ensurenl=False),
}
_CLASSES = {
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Literal.String: "s",
    Token.Literal.Number: "n",
    Token.Comment: "c",
    Token.Name.Builtin: "b",
    Token.Name.Decorator: "b",
    Token.Name.Class: "f",
    Token.Name.Function: "f",
}


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff.

    Attributes:
        kind: The sign that it starts with: "+", "-", a space, "@", or a backslash, which is before a note.
        number: Its 1-based number, in the old file if it is removed, else in the new one; empty if it has none.
        text: What stands behind the sign.
    """

    kind: str
    number: str
    text: Markup


def diff_lines(change: FileChange) -> list[DiffLine]:
    """The hunks of a change. Only they are read by a lexer: a whole file takes it half a second."""
    # The headers are not shown, so that a newline in the path does no harm.
    lines = unified_diff("file", change.before, change.after).decode(errors="replace").split("\n")[3:-1]
    lexer = _LEXERS.get(change.path.rpartition(".")[2])
    result: list[DiffLine] = []
    for hunk in _hunks(lines[:_MOST_LINES]):
        result += _hunk(hunk, lexer)
    if len(lines) > _MOST_LINES:
        result.append(DiffLine("\\", "", escape(f" {count(len(lines) - _MOST_LINES, 'more line')}")))
    return result


def _hunks(lines: list[str]) -> Iterator[list[str]]:
    hunk: list[str] = []
    for line in lines:
        if line.startswith("@@") and hunk:
            yield hunk
            hunk = []
        hunk.append(line)
    if hunk:
        yield hunk


def _hunk(lines: list[str], lexer: Lexer | None) -> Iterator[DiffLine]:
    head, *rest = [_shown(line) for line in lines]
    start = _HUNK.match(head)
    old, new = (int(start[1]), int(start[2])) if start else (1, 1)
    # Each side is code, the mixture of both is not.
    before = iter(_colour([line[1:] for line in rest if line[:1] in "- "], lexer))
    after = iter(_colour([line[1:] for line in rest if line[:1] in "+ "], lexer))
    yield DiffLine("@", "", escape(head[1:]))
    for line in rest:
        kind = line[:1]
        if kind == "-":
            yield DiffLine(kind, str(old), next(before))
            old += 1
        elif kind == "+":
            yield DiffLine(kind, str(new), next(after))
            new += 1
        elif kind == " ":
            next(before)
            yield DiffLine(kind, str(new), next(after))
            old, new = old + 1, new + 1
        else:
            yield DiffLine("\\", "", escape(line[1:]))


def _colour(lines: list[str], lexer: Lexer | None) -> list[Markup]:
    """The lines with spans around what has a colour; as many as there were."""
    if lexer is None:
        return [escape(line) for line in lines]
    coloured = [Markup()]
    for token, text in lexer.get_tokens("\n".join(lines)):
        name = _class_of(token)
        for number, part in enumerate(text.split("\n")):
            if number:
                coloured.append(Markup())
            if part:
                coloured[-1] += Markup('<span class="{}">{}</span>').format(name, part) if name else escape(part)
    return coloured


def _class_of(token: _TokenType) -> str:
    while token not in _CLASSES and token.parent is not None:
        token = token.parent
    return _CLASSES.get(token, "")


def _shown(line: str) -> str:
    """A line without what a browser would act on, cut where nobody would read on."""
    line = line[:_LONGEST_LINE].replace("\r", "␍").expandtabs(4)
    return printable(line)
