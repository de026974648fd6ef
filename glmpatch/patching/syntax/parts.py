"""Read no more of a Python file than matters: LibCST takes half a second for the 3,800 lines of upstream's trainer."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from itertools import accumulate

import libcst as cst

from glmpatch.patching.model import Refusal
from glmpatch.patching.syntax.python import PythonFile, Span, outline, read_python
from glmpatch.patching.syntax.search import whole_words


def definitions(data: bytes, name: str) -> list[tuple[PythonFile, cst.FunctionDef]]:
    """Every function or method called `name`, each in a `PythonFile` of its lines alone.

    For large files: LibCST needs half a second to read the 3,800 lines of upstream's trainer. The standard parser says
    in a twentieth of that where the function is, and LibCST reads no more.

    Raises:
        Refusal: The file cannot be parsed.
    """
    found: list[tuple[PythonFile, cst.FunctionDef]] = []
    starts = _line_starts(data)
    for node in _functions(outline(data)):
        if node.name == name:
            file = PythonFile(data, [_lines_of(node, starts)])
            body = file.module.body[0]
            inner = body.body.body[0] if isinstance(body, cst.If) else body
            if not isinstance(inner, cst.FunctionDef):
                raise Refusal("a definition on lines of its own", f"def {name}()", line=node.lineno)
            found.append((file, inner))
    return found


def statements_with(data: bytes, words: Iterable[str]) -> PythonFile:
    """A file of those statements of the module alone in which one of the whole words stands.

    Where they are most of the file, it is the whole file, which other transforms have to read as well.

    Raises:
        Refusal: The file cannot be parsed.
    """
    pattern, starts = whole_words(words), _line_starts(data)
    parts: list[Span] = []
    for node in outline(data).body:
        part = _lines_of(node, starts)
        if pattern.search(data, part.start, part.end) and not (parts and part.start < parts[-1].end):
            parts.append(part)
    if not parts or sum(part.end - part.start for part in parts) * 2 > len(data):
        return read_python(data)
    return PythonFile(data, parts)


def _line_starts(data: bytes) -> list[int]:
    """The offset of each line, and the length of the file."""
    return list(accumulate((len(line) for line in data.splitlines(keepends=True)), initial=0))


def _lines_of(node: ast.stmt, starts: list[int]) -> Span:
    """The whole lines of a statement, with its decorators."""
    decorators = getattr(node, "decorator_list", ())
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return Span(starts[first - 1], starts[node.end_lineno or node.lineno])


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions at and below `node`. Expressions, most of a file, hold none."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _functions(child)
