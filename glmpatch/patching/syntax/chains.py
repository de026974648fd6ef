"""Chains of method calls, `root.a().b().c()`: found, and edited link by link."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import libcst as cst

from glmpatch.patching.model import Replacement
from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import Ancestors, find_nodes

NameCall: TypeAlias = Callable[[cst.Call], str]


@dataclass(frozen=True, slots=True)
class Link:
    """One call of a chain, `.b()`.

    Attributes:
        call: The call.
        function: The method, with what it is called on.
        method: The name of the method, or of the one that it is as good as.
    """

    call: cst.Call
    function: cst.Attribute
    method: str


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


def method_name(call: cst.Call) -> str:
    """The name of the method that is called; empty where it is no method."""
    return call.func.attr.value if isinstance(call.func, cst.Attribute) else ""


def find_chains(
    file: PythonFile, methods: Collection[str], *, words: Collection[str] = (), name: NameCall = method_name
) -> Iterator[Chain]:
    """The longest chains that call nothing but `methods`, in source order.

    Args:
        file: Where to look.
        methods: The names of the methods.
        words: The names of others that `name` takes for one of them.
        name: The name of the method that a call is as good as.
    """
    inner: set[cst.CSTNode] = set()
    for site in find_nodes(file, cst.Call, (*methods, *words)):
        links: list[Link] = []
        root: cst.BaseExpression = site.node
        while link := _link(root, methods, name):
            links.append(link)
            root = link.function.value
            inner.add(root)
        if links and site.node not in inner:
            yield Chain(site.node, root, tuple(reversed(links)), site.parents)


def rename(file: PythonFile, link: Link, method: str) -> Replacement:
    """Call `method`, without arguments, in the place of the method of `link`."""
    span = file.span(link.function.attr)
    if link.call.args:
        return Replacement(span.start, file.span(link.call).end, f"{method}()".encode())
    return Replacement(span.start, span.end, method.encode())


def remove(file: PythonFile, link: Link) -> Replacement:
    """Take the call of `link` out of its chain, with its line where it has one. A comment before it stays."""
    end = file.span(link.call).end
    ends_line = not file.data[end:].partition(b"\n")[0].strip()
    before_dot = file.span(link.function.dot.whitespace_before)
    gap = file.data[before_dot.start : before_dot.end]
    kept = b"" if b"#" not in gap else gap.rstrip() if ends_line else gap
    return Replacement(before_dot.start + len(kept), end, b"")


def _link(node: cst.BaseExpression, methods: Collection[str], name: NameCall) -> Link | None:
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and (method := name(node)) in methods:
        return Link(node, node.func, method)
    return None
