"""Find nodes in a Python file by the words that stand in them, without a walk through the whole tree."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import libcst as cst

from glmpatch.patching.syntax.python import PythonFile, Statement

NodeT = TypeVar("NodeT", bound=cst.CSTNode)
Ancestors: TypeAlias = tuple[cst.CSTNode, ...]


@dataclass(frozen=True, slots=True)
class Site(Generic[NodeT]):
    """A node, and the nodes around it.

    Attributes:
        node: The node.
        parents: The nodes that hold it, from the module inwards.
    """

    node: NodeT
    parents: Ancestors

    @property
    def statement(self) -> Statement:
        """The innermost statement around the node: a line of simple statements, or a compound one."""
        statements = [parent for parent in self.parents if isinstance(parent, Statement)]
        return statements[-1]

    @property
    def function(self) -> cst.FunctionDef | None:
        """The innermost function around the node; None at module level."""
        return next((node for node in reversed(self.parents) if isinstance(node, cst.FunctionDef)), None)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The names of the functions and classes around the node, from the module inwards."""
        return tuple(node.name.value for node in self.parents if isinstance(node, cst.FunctionDef | cst.ClassDef))


def find_nodes(
    file: PythonFile, kind: type[NodeT] | tuple[type[NodeT], ...], words: Iterable[str]
) -> Iterator[Site[NodeT]]:
    """The nodes of the kind (or kinds) in which one of the whole words stands, in source order, outer ones first.

    The word may stand anywhere in the node, in a comment or a string too: the caller looks closer.
    """
    places = [match.start() for match in whole_words(words).finditer(file.data)]
    waiting: list[tuple[cst.CSTNode, Ancestors]] = [(file.module, ())] if places else []
    while waiting:
        node, parents = waiting.pop()
        if not _holds_any(file, node, places):
            continue
        if isinstance(node, kind):
            yield Site(node, parents)
        around = (*parents, node)
        waiting += [(child, around) for child in reversed(node.children)]


def whole_words(words: Iterable[str]) -> re.Pattern[bytes]:
    """A pattern for any of the words, where it is no part of a longer one."""
    return re.compile(rb"\b(?:%s)\b" % b"|".join(re.escape(word.encode()) for word in words))


def _holds_any(file: PythonFile, node: cst.CSTNode, places: list[int]) -> bool:
    if isinstance(node, cst.Param):
        return True  # its span in LibCST is that of its name, without annotation and default
    decorators = node.decorators if isinstance(node, cst.FunctionDef | cst.ClassDef) else ()
    index = bisect_left(places, file.span(decorators[0] if decorators else node).start)
    return index < len(places) and places[index] < file.span(node).end


def walk(node: cst.CSTNode, above: Ancestors = ()) -> Iterator[Site[cst.CSTNode]]:
    """`node` and all nodes below it, an outer one first, in source order."""
    yield Site(node, above)
    around = (*above, node)
    for child in node.children:
        yield from walk(child, around)


def plain_name(node: cst.CSTNode) -> str:
    """`a.b.c` for names and attributes alone; empty where anything else is in it."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute) and (base := plain_name(node.value)):
        return f"{base}.{node.attr.value}"
    return ""
