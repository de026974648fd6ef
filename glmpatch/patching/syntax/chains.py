"""Chains of method calls, `root.a().b().c()`: found, and edited link by link."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import libcst as cst

from glmpatch.patching.model import Replacement
from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import Ancestors, find_nodes


@dataclass(frozen=True, slots=True)
class Link:
    """One call of a chain, `.b()`."""

    call: cst.Call
    function: cst.Attribute

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.function.attr.value


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls of methods, each on the result of the one before.

    Attributes:
        head: The whole expression: the last call.
        root: What the first method is called on.
        links: The calls, in the order in which they run.
        ancestors: The nodes around `head`, the outermost first.
    """

    head: cst.Call
    root: cst.BaseExpression
    links: tuple[Link, ...]
    ancestors: Ancestors

    def named(self, *methods: str) -> list[Link]:
        """The links that call one of `methods`."""
        return [link for link in self.links if link.method in methods]


def find_chains(file: PythonFile, methods: Collection[str]) -> Iterator[Chain]:
    """The longest chains that call nothing but `methods`, in source order."""
    inner: set[cst.CSTNode] = set()
    for site in find_nodes(file, cst.Call, methods):
        links: list[Link] = []
        root: cst.BaseExpression = site.node
        while link := _link(root, methods):
            links.append(link)
            root = link.function.value
            inner.add(root)
        if links and site.node not in inner:
            yield Chain(site.node, root, tuple(reversed(links)), site.parents)


def rename(file: PythonFile, link: Link, method: str) -> Replacement:
    """Call `method` in the place of the method of `link`."""
    span = file.span(link.function.attr)
    return Replacement(span.start, span.end, method.encode())


def remove(file: PythonFile, link: Link) -> Replacement:
    """Take the call of `link` out of its chain, with its line where it has one. A comment before it stays."""
    end = file.span(link.call).end
    ends_line = not file.data[end:].partition(b"\n")[0].strip()
    before_dot = file.span(link.function.dot.whitespace_before)
    gap = file.data[before_dot.start : before_dot.end]
    kept = b"" if b"#" not in gap else gap.rstrip() if ends_line else gap
    return Replacement(before_dot.start + len(kept), end, b"")


def _link(node: cst.BaseExpression, methods: Collection[str]) -> Link | None:
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in methods:
        return Link(node, node.func)
    return None
