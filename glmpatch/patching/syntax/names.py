"""What the names of a Python file stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias

import libcst as cst

from glmpatch.patching.syntax.imports import imported_names
from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import Site, find_nodes

Scopes: TypeAlias = tuple[str, ...]

# A name right inside one of these is read, or is the word of an attribute or keyword. Elsewhere it may be bound.
_READERS = (
    cst.Annotation,
    cst.Arg,
    cst.Assert,
    cst.Assign,
    cst.Attribute,
    cst.Await,
    cst.BinaryOperation,
    cst.BooleanOperation,
    cst.Call,
    cst.Comparison,
    cst.ComparisonTarget,
    cst.Decorator,
    cst.DictElement,
    cst.Expr,
    cst.FormattedStringExpression,
    cst.If,
    cst.IfExp,
    cst.Index,
    cst.Return,
    cst.Subscript,
    cst.UnaryOperation,
)


class Names:
    """The bindings of a file, by scope. A scope is named by its functions and classes, from the module inwards.

    What is not surely a read counts as a binding to something unknown.
    """

    def __init__(self, file: PythonFile) -> None:
        self._file = file
        self._known: dict[str, dict[Scopes, set[str | None]]] = {}
        self.imports = tuple(imported_names(file))

    def is_free(self, name: str, scopes: Scopes) -> bool:
        """Whether `name`, read in the scope, is surely bound by nothing in this file."""
        stars = any(imported.name == "*" for imported in self.imports)
        return not stars and all(not origins for _, origins in self._visible(name, scopes))

    def is_of_module(self, name: str, scopes: Scopes) -> bool:
        """Whether `name`, read in the scope, is the one of the module: no function around binds it."""
        return all(not scope or not origins for scope, origins in self._visible(name, scopes))

    def origin(self, name: str, scopes: Scopes) -> str | None:
        """What a dotted name stands for when read in the scope.

        Returns:
            `torch.distributed.all_reduce` for `dist.all_reduce` after `import torch.distributed as dist`. None if
            the first part of the name is not bound by imports of one thing alone.
        """
        head, dot, rest = name.partition(".")
        for _, origins in self._visible(head, scopes):
            if origins:
                (origin, *others) = origins
                return None if others or origin is None else origin + dot + rest
        return None

    def _visible(self, name: str, scopes: Scopes) -> Iterator[tuple[Scopes, set[str | None]]]:
        """What `name` is bound to in the scope and in those around it, from the innermost outwards."""
        if name not in self._known:
            self._known[name] = self._origins(name)
        for depth in range(len(scopes), -1, -1):
            yield scopes[:depth], self._known[name].get(scopes[:depth], set())

    def _origins(self, name: str) -> dict[Scopes, set[str | None]]:
        """What `name` is bound to, by scope; None for what is not an import."""
        origins: dict[Scopes, set[str | None]] = defaultdict(set)
        for imported in self.imports:
            if imported.name == name:
                origins[imported.site.scopes].add(imported.origin)
        for site in find_nodes(self._file, cst.Name, [name]) if name else ():
            if site.node.value == name and not isinstance(site.parents[-1], _READERS) and not _in_import(site):
                origins[_scopes_of_binding(site)].add(None)
        return origins


def _in_import(site: Site[cst.Name]) -> bool:
    return any(isinstance(parent, cst.Import | cst.ImportFrom) for parent in site.parents)


def _scopes_of_binding(site: Site[cst.Name]) -> Scopes:
    parent = site.parents[-1]
    if isinstance(parent, cst.NameItem):
        return ()  # after `global`, an assignment may be one to the module's name
    if isinstance(parent, cst.FunctionDef | cst.ClassDef) and parent.name is site.node:
        return site.scopes[:-1]
    return site.scopes
