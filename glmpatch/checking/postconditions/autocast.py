"""What `cpu-autocast` sees to: the trainer has a CPU branch of autocast, or inherits it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Protocol

from glmpatch.checking.postconditions.broken import Broken
from glmpatch.checking.postconditions.python import Function, Sources, dotted, statements


class _Parameters(Protocol):
    function: str
    autocast: str


def breaks_autocast(sources: Sources, transform: _Parameters) -> Iterator[Broken]:
    """Find a method that enters no autocast on the CPU."""
    tree = sources[1].tree
    found = list(statements(tree))
    functions = [node for node in found if isinstance(node, Function) and node.name == transform.function]
    for function in functions:
        calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
        if not any(dotted(call.func) == transform.autocast for call in calls):
            expected = f"a call of {transform.autocast}() in {transform.function}()"
            yield Broken(expected, "no such call", function.lineno)
    imports = (node for node in found if isinstance(node, ast.ImportFrom))
    inherits = any(
        (node.module or "").partition(".")[0] == "transformers"
        and any(_binds(name) == "Trainer" for name in node.names)
        for node in imports
    )
    if not functions and not inherits:
        yield Broken(f"a method {transform.function}(), or transformers' Trainer", "neither")


def _binds(name: ast.alias) -> str:
    return name.asname or name.name
