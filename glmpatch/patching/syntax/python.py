"""Python through LibCST: read a file, and edit it by byte span.

A transform looks at the tree and asks for replacements of spans. All bytes outside the spans stay as they are, whatever
the code generator of LibCST would make of them.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
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
        part: The whole lines to read, if not all; spans and lines are still those of the file. Indented lines are
            read as the body of an `if`.

    Raises:
        Refusal: The file cannot be parsed, or LibCST does not give its bytes back.
    """

    def __init__(self, data: bytes, part: Span | None = None) -> None:
        self.data = data
        self._shift = 0
        code = data
        if part is None:
            # LibCST's parser ends the whole process where the nesting is too deep for its stack, and does not know
            # the line of every error. Python's own refuses both first.
            _outline(data)
        else:
            code = data[part.start : part.end]
            newline = b"\r\n" if b"\r\n" in code else b"\n"
            head = b"if True:" + newline if code[:1] in {b" ", b"\t"} else b""
            code = head + code
            self._shift = part.start - len(head)
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
        start = span.start + self._shift
        return Span(start, start + span.length)

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
        return self.rewrite_python(_read(data))

    def rewrite_python(self, file: PythonFile) -> Rewrite:
        """Say what must change in `file`.

        Raises:
            Refusal: `file` is not fully understood.
        """
        raise NotImplementedError


@lru_cache(maxsize=1)
def _read(data: bytes) -> PythonFile:
    """The file, read once for transforms that follow each other: they only look at it."""
    return PythonFile(data)


def below_docstring(node: cst.Module | cst.FunctionDef) -> list[Statement]:
    """The statements of a module or function without its docstring; none for a function on one line."""
    suite = node if isinstance(node, cst.Module) else node.body
    if not isinstance(suite, cst.Module | cst.IndentedBlock):
        return []
    statements = [part for part in suite.body if isinstance(part, Statement)]
    return statements if node.get_docstring(clean=False) is None else statements[1:]


def definitions(data: bytes, name: str) -> list[tuple[PythonFile, cst.FunctionDef]]:
    """Every function or method called `name`, each in a `PythonFile` of its lines alone.

    For large files: LibCST needs half a second to read the 3,800 lines of upstream's trainer. The standard parser says
    in a twentieth of that where the function is, and LibCST reads no more.

    Raises:
        Refusal: The file cannot be parsed.
    """
    found: list[tuple[PythonFile, cst.FunctionDef]] = []
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _functions(_outline(data)):
        if node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            part = Span(starts[first - 1], starts[node.end_lineno or node.lineno])
            file = PythonFile(data, part)
            body = file.module.body[0]
            inner = body.body.body[0] if isinstance(body, cst.If) else body
            if not isinstance(inner, cst.FunctionDef):
                raise Refusal("a definition on lines of its own", f"def {name}()", line=node.lineno)
            found.append((file, inner))
    return found


@lru_cache(maxsize=1)
def _outline(data: bytes) -> ast.Module:
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


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions at and below `node`. Expressions, most of a file, hold none."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _functions(child)


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
    module._codegen(state)  # noqa: SLF001
    if "".join(state.tokens).encode() != data:
        raise Refusal("a file that LibCST gives back byte for byte", "other bytes")
    return provider._computed  # type: ignore[return-value]  # noqa: SLF001


def _length_in_utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
