"""Python read by `ast`: names, the calls and what is around them, and what two versions of a file have in common."""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from itertools import islice
from typing import TypeAlias

from glmpatch.checking.postconditions.broken import Broken, first_line

Around: TypeAlias = tuple[ast.AST, ...]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Sources: TypeAlias = "tuple[PythonSource, PythonSource]"
"""A file before and behind its edits."""

_BLOCKS = ("body", "orelse", "finalbody")
_PARTS = ("handlers", "cases")
_COMMENT = re.compile(r"#.*")


class PythonSource:
    """A parsed Python file.

    Raises:
        SyntaxError: It is no Python.
        ValueError: It has a NUL in it.
        RecursionError, MemoryError: It is nested too deeply.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # upstream's escape sequences are upstream's business
            self.tree = ast.parse(text)

    @cached_property
    def calls(self) -> list[tuple[ast.Call, Around]]:
        """All calls with the nodes around them, the outermost first, in source order."""
        found: list[tuple[ast.Call, Around]] = []
        waiting: list[tuple[ast.AST, Around]] = [(self.tree, ())]
        while waiting:
            node, around = waiting.pop()
            if isinstance(node, ast.Call):
                found.append((node, around))
            inside = (*around, node)
            waiting += [(child, inside) for child in ast.iter_child_nodes(node)]
        return sorted(found, key=lambda call: position(call[0]))

    def find_compiler_error(self) -> SyntaxError | None:
        """What the compiler says against a tree that could be parsed: `from __future__` below other code, for one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                compile(self.tree, "<the result>", "exec", dont_inherit=True)
            except SyntaxError as error:
                return error
        return None

    def source(self, node: ast.stmt) -> str:
        """The whole lines of a statement, with its decorators."""
        decorators: Sequence[ast.expr] = getattr(node, "decorator_list", ())
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.lines[first - 1 : node.end_lineno])


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a transform may do to a file beside what it is judged for.

    Attributes:
        adds: Whether it may have put in a statement.
        wraps: Whether it may have put in a compound statement around others.
        normal: Makes a statement that it may have changed the same before and behind it.
    """

    adds: Callable[[ast.stmt], bool] = lambda _: False
    wraps: Callable[[ast.stmt], bool] = lambda _: False
    normal: Callable[[ast.AST], ast.AST] = lambda node: node


def position(node: ast.expr | ast.stmt) -> tuple[int, int]:
    """The line and the column where a node starts."""
    return node.lineno, node.col_offset


def dotted(node: ast.AST) -> str:
    """`a.b.c` for names and attributes alone; empty where anything else is in it."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def called(call: ast.Call) -> str:
    """The last name of what is called: `c` in `a.b().c()`."""
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def function_around(around: Around) -> Function | None:
    """The innermost function; None at module level."""
    return next((node for node in reversed(around) if isinstance(node, Function)), None)


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements below `node`, but nothing of expressions, which are most of a file."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from statements(child)


def is_code(node: ast.stmt, code: str) -> bool:
    """Whether a statement is, however it is written, this one."""
    return ast.dump(node) == ast.dump(ast.parse(code).body[0])


def find_lost(before: PythonSource, after: PythonSource, allowances: Iterable[Allowance]) -> Iterator[Broken]:
    """The first statement that is gone, changed or new, where none of the allowances explains it."""
    return islice(_Survival(before, after, tuple(allowances)).compare(before.tree.body, after.tree.body), 1)


def find_lost_comments(before: PythonSource, after: PythonSource) -> Iterator[Broken]:
    """The first comment that is no longer there, in the order of the file."""
    # A quick look first, at what looks like a comment: most files need no closer one.
    if any(_find_missing(_comment_like(before), _comment_like(after))):
        lost = _find_missing(_comments(before), _comments(after))
        yield from (Broken(f"the comment {comment}", "no such comment") for comment in islice(lost, 1))


def _find_missing(old: Iterator[str], new: Iterator[str]) -> Iterator[str]:
    return (comment for comment in old if comment not in new)


def _comment_like(source: PythonSource) -> Iterator[str]:
    """The comments, and what looks like one in a string."""
    matches = map(_COMMENT.search, source.lines)
    return (match.group() for match in matches if match)


def _comments(source: PythonSource) -> Iterator[str]:
    # The tokenizer may stumble at the end over what the parser took.
    with suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(StringIO("\n".join(source.lines)).readline):
            if token.type == tokenize.COMMENT:
                yield token.string


class _Survival:
    """Looks for all statements of a file in another one. Equal lines are equal code: most need no closer look."""

    def __init__(self, before: PythonSource, after: PythonSource, allowances: tuple[Allowance, ...]) -> None:
        self._before = before
        self._after = after
        self._allowances = allowances

    def compare(self, before: list[ast.stmt], after: list[ast.stmt]) -> Iterator[Broken]:
        """Find the statements of one block in another, in their order."""
        left = list(reversed(after))
        for old in before:
            while left and not self._is_same(old, left[-1]) and self._is_ours(left[-1]):
                new = left.pop()
                if self._wraps(new):
                    left += reversed(getattr(new, "body", []))
            if not left:
                yield Broken(f"the statement {first_line(self._before.source(old))}", "no such statement")
                return
            yield from self._compare_one(old, left.pop())
        for new in reversed(left):
            if not self._is_ours(new):
                yield Broken("no statement but those promised", first_line(self._after.source(new)), new.lineno)

    def _is_same(self, old: ast.stmt, new: ast.stmt) -> bool:
        if self._before.source(old) == self._after.source(new):
            return True
        one, other = self._normal(old), self._normal(new)
        # Two compound statements are compared part by part, which says where they differ.
        return type(one) is type(other) and not hasattr(one, "body") and ast.dump(one) == ast.dump(other)

    def _is_ours(self, new: ast.stmt) -> bool:
        return self._wraps(new) or any(allowance.adds(new) for allowance in self._allowances)

    def _wraps(self, new: ast.stmt) -> bool:
        return any(allowance.wraps(new) for allowance in self._allowances)

    def _normal(self, node: ast.AST) -> ast.AST:
        for allowance in self._allowances:
            node = allowance.normal(node)
        return node

    def _compare_one(self, old: ast.stmt, new: ast.stmt) -> Iterator[Broken]:
        if self._is_same(old, new):
            return
        if type(old) is type(new) and hasattr(old, "body"):
            yield from self._compare_inside(old, new, new.lineno)
        else:
            yield self._changed(old, new, new.lineno)

    def _compare_inside(self, old: ast.AST, new: ast.AST, line: int) -> Iterator[Broken]:
        """Compare two compound statements, or two of their handlers or cases."""
        for field in old._fields:
            one, other = getattr(old, field), getattr(new, field)
            if field in _BLOCKS:
                yield from self.compare(one, other)
            elif field in _PARTS and len(one) == len(other):
                for part, counterpart in zip(one, other, strict=True):
                    yield from self._compare_inside(part, counterpart, line)
            elif self._dump_field(one) != self._dump_field(other):
                yield self._changed(old, new, line)
                return

    def _dump_field(self, value: object) -> object:
        if isinstance(value, list):
            return [self._dump_field(item) for item in value]
        return ast.dump(self._normal(value)) if isinstance(value, ast.AST) else value

    def _changed(self, old: ast.AST, new: ast.AST, line: int) -> Broken:
        return Broken(f"the statement {first_line(ast.unparse(old))}", first_line(ast.unparse(new)), line)
