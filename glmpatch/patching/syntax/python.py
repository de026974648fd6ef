"""Python through LibCST: read a file, and edit it by byte span.

A transform looks at the tree and asks for replacements of spans. All bytes outside the spans stay as they are, whatever
the code generator of LibCST would make of them.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NoReturn, TypeAlias

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, CodeSpan
from libcst.metadata.span_provider import SpanProvidingCodegenState

from glmpatch.patching.model import Refusal, Replacement, Rewrite, Transform

Statement: TypeAlias = cst.SimpleStatementLine | cst.BaseCompoundStatement


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `[start, end)` of a file."""

    start: int
    end: int


class PythonFile:
    """A parsed Python file and the byte span of each of its nodes.

    Args:
        data: The file, in UTF-8, without a byte order mark.
        parts: The whole lines to read, if not all; spans and lines are still those of the file. Where the first one is
            indented, they are read as the body of an `if`.

    Raises:
        Refusal: The file cannot be parsed, or LibCST does not give its bytes back.
    """

    def __init__(self, data: bytes, parts: Sequence[Span] | None = None) -> None:
        self.data = data
        # LibCST's parser ends the whole process where the nesting is too deep for its stack, and does not know the line
        # of every error. Python's own refuses both first.
        outline(data)
        head = b""
        if parts is None:
            parts = [Span(0, len(data))]
        elif data[parts[0].start : parts[0].start + 1] in {b" ", b"\t"}:
            head = b"if True:\r\n" if b"\r\n" in data else b"if True:\n"
        code = head + b"".join(data[part.start : part.end] for part in parts)
        self._code_starts = list(accumulate((part.end - part.start for part in parts[:-1]), initial=len(head)))
        self._starts = [part.start for part in parts]
        self._code = code
        self.module = _parse(code)
        self._spans: Mapping[cst.CSTNode, CodeSpan] | None = None

    @property
    def newline(self) -> str:
        """The line ending that most of the file uses."""
        return self.module.default_newline

    def span(self, node: cst.CSTNode) -> Span:
        """The bytes of `node` itself, without the white space, comments and decorators around it."""
        if self._spans is None:
            self._spans = _spans_of(self.module, self._code)
        span = self._spans[node]
        start = self._place(span.start)
        return Span(start, self._place(span.start + span.length - 1) + 1 if span.length else start)

    def _place(self, offset: int) -> int:
        """Where the byte at an offset of the code that was read stands in the file."""
        part = max(0, bisect_right(self._code_starts, offset) - 1)
        return self._starts[part] + offset - self._code_starts[part]

    def line(self, node: cst.CSTNode) -> int:
        """The 1-based line on which `node` starts."""
        return self.line_at(self.span(node).start)

    def line_at(self, offset: int) -> int:
        """The 1-based line of a byte offset."""
        return self.data.count(b"\n", 0, offset) + 1

    def code(self, node: cst.CSTNode) -> str:
        """The text of `node`."""
        span = self.span(node)
        return self.data[span.start : span.end].decode("utf-8")

    def refuse(self, node: cst.CSTNode, expected: str, hint: str = "") -> NoReturn:
        """Give up on the file because of `node`."""
        found = self.code(node).strip().splitlines()[0]
        raise Refusal(expected, found, hint=hint, line=self.line(node))

    def indent_of(self, statement: Statement) -> str:
        """The white space before `statement`.

        Raises:
            Refusal: Something else stands before it on its line, or it is the `elif` of another one, or lines of the
                file end with a lone CR: Python sees them, and the search for a newline does not.
        """
        lone = re.search(rb"\r(?!\n)", self.data)
        if lone is not None:
            line = self.line_at(lone.start())
            raise Refusal("lines that end with LF or CRLF", "a lone CR", hint="convert the line endings", line=line)
        start = self.span(statement).start
        indent = self.data[self._line_start(start) : start].decode()
        if indent.strip() or self.data.startswith(b"elif", start):
            self.refuse(statement, "a statement on a line of its own")
        return indent

    def insert_before(self, statement: Statement, lines: list[str]) -> Replacement:
        """Put whole lines before `statement` and its decorators, below its comments, with its indentation.

        Raises:
            Refusal: Something else stands before `statement` on its line.
        """
        indent = self.indent_of(statement)
        start = self._first_line_start(statement)
        return Replacement(start, start, self._whole_lines(indent, lines))

    def insert_after(self, statement: Statement, lines: list[str]) -> Replacement:
        """Put whole lines behind the line on which `statement` ends, with its indentation.

        Raises:
            Refusal: Something else stands before `statement` on its line.
        """
        indent = self.indent_of(statement)
        end = self.data.find(b"\n", self.span(statement).end) + 1
        text = self._whole_lines(indent, lines)
        if end == 0:
            newline = self.newline.encode()
            return Replacement(len(self.data), len(self.data), newline + text.removesuffix(newline))
        return Replacement(end, end, text)

    def insert_above_comments(self, statement: Statement, lines: list[str]) -> Replacement:
        """Put whole lines before `statement`, above its decorators and the comments that touch it.

        Comments that reach up to the top of the file belong to the file: there the lines go below them.

        Raises:
            Refusal: Something else stands before `statement` on its line.
        """
        indent = self.indent_of(statement)
        start = top = self._first_line_start(statement)
        for line in reversed(statement.leading_lines):
            if line.comment is None:
                break
            top = self._line_start(top - 1)
        top = top or start
        return Replacement(top, top, self._whole_lines(indent, lines))

    def _whole_lines(self, indent: str, lines: list[str]) -> bytes:
        """The lines with indentation and ending; an empty one gets no indentation."""
        return "".join((indent + line if line else "") + self.newline for line in lines).encode()

    def _first_line_start(self, statement: Statement) -> int:
        decorators = getattr(statement, "decorators", ())
        return self._line_start(self.span(decorators[0] if decorators else statement).start)

    def _line_start(self, offset: int) -> int:
        return self.data.rfind(b"\n", 0, offset) + 1


class PythonTransform(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transform on Python: a subclass implements `rewrite_python`."""

    def rewrite(self, data: bytes) -> Rewrite:
        """Parse `data` and hand it on."""
        return self.rewrite_python(read_python(data))

    def rewrite_python(self, file: PythonFile) -> Rewrite:
        """Say what must change in `file`.

        Raises:
            Refusal: `file` is not fully understood.
        """
        raise NotImplementedError


@lru_cache(maxsize=1)
def read_python(data: bytes) -> PythonFile:
    """The file, read once for transforms that follow each other: they only look at it."""
    return PythonFile(data)


def below_docstring(node: cst.Module | cst.FunctionDef) -> list[Statement]:
    """The statements of a module or function without its docstring; none for a function on one line."""
    suite = node if isinstance(node, cst.Module) else node.body
    if not isinstance(suite, cst.Module | cst.IndentedBlock):
        return []
    statements = [part for part in suite.body if isinstance(part, Statement)]
    return statements if node.get_docstring(clean=False) is None else statements[1:]


@lru_cache(maxsize=1)
def outline(data: bytes) -> ast.Module:
    """The file as the standard parser sees it: 20 times as fast as LibCST, and good for finding the lines to read.

    Raises:
        Refusal: The file cannot be parsed.
    """
    try:
        with warnings.catch_warnings():
            # Upstream's escape sequences are upstream's business.
            warnings.simplefilter("ignore")
            return ast.parse(data.decode("utf-8"))
    except (RecursionError, MemoryError) as error:
        raise Refusal("a file that Python can parse", "code nested too deeply") from error
    except (SyntaxError, ValueError) as error:
        found, line = (error.msg, error.lineno) if isinstance(error, SyntaxError) else (str(error), None)
        hint = "mend the syntax error, then try again"
        raise Refusal("a file that Python can parse", found, hint=hint, line=line) from error


def _parse(data: bytes) -> cst.Module:
    try:
        return cst.parse_module(data.decode("utf-8"))
    except cst.ParserSyntaxError as error:
        raise Refusal("a file that LibCST can parse", error.message) from error


def _spans_of(module: cst.Module, data: bytes) -> Mapping[cst.CSTNode, CodeSpan]:
    provider = ByteSpanPositionProvider()
    state = SpanProvidingCodegenState(
        default_indent=module.default_indent,
        default_newline=module.default_newline,
        provider=provider,
        get_length=_length_in_utf8,
    )
    # What MetadataWrapper.resolve() does with this provider, at less than half of its cost; and the code comes with it.
    try:
        module._codegen(state)  # noqa: SLF001
    except KeyError:
        # What the provider makes of a RecursionError, as in a chain of hundreds of `elif`.
        raise Refusal("code that a parser can follow", "code that is nested too deeply") from None
    if "".join(state.tokens).encode() != data:
        raise Refusal("a file that LibCST gives back byte for byte", "other bytes")
    return provider._computed  # type: ignore[return-value]  # noqa: SLF001


def _length_in_utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
