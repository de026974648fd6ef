"""What `checkpoint-resume` promises: NumPy's random state may be loaded, around the one call that loads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Protocol

from glmpatch.checking.postconditions.broken import Broken
from glmpatch.checking.postconditions.python import Allowance, Function, PythonSource, Sources, is_code, statements

_IMPORT = "from contextlib import nullcontext"
_NAMES = (
    "numpy_names = [{numpy}.core.multiarray._reconstruct, {numpy}.ndarray, {numpy}.dtype,"
    " type({numpy}.dtype('uint32'))]"
)
_CONTEXT = 'getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names)'
_OVERRIDE = f"""def {{function}}(self, checkpoint):
    {_IMPORT}
    import numpy as np
    {_NAMES.format(numpy="np")}
    with {_CONTEXT}:
        super().{{function}}(checkpoint)"""


class _Parameters(Protocol):
    function: str


def find_broken(sources: Sources, transform: _Parameters) -> Iterator[Broken]:
    """Find a method that loads the state and may not."""
    name = transform.function
    functions = [node for node in statements(sources[1].tree) if isinstance(node, Function) and node.name == name]
    if not functions:
        yield Broken(f"a method {name}()", "none")
    for function in functions:
        allowed, loads = _loads(function, name)
        if loads != 1:
            yield Broken(f"one call in {name}() that loads the state", str(loads), function.lineno)
        elif not allowed:
            yield Broken("the names of NumPy's state allowed where it is loaded", "they are not", function.lineno)
        yield from _find_unbound(function)


def _loads(function: Function, name: str) -> tuple[int, int]:
    """How many calls load the state with leave to do so, and how many load it."""
    loading = {"torch.load", f"super().{name}"}
    inside = {
        id(node)
        for block in ast.walk(function)
        if isinstance(block, ast.With) and any("safe_globals" in ast.unparse(item) for item in block.items)
        for node in ast.walk(block)
    }
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and ast.unparse(node.func) in loading]
    return sum(id(call) in inside or _loads_anything(call) for call in calls), len(calls)


def _loads_anything(call: ast.Call) -> bool:
    return any(word.arg == "weights_only" and ast.unparse(word.value) == "False" for word in call.keywords)


def _find_unbound(function: Function) -> Iterator[Broken]:
    """Find a name that only the added lines bind, used without the line that binds it."""
    nodes = list(ast.walk(function))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in {"nullcontext", "numpy_names"} - bound:
            yield Broken(f"{node.id} bound where it is used", "nothing binds it", node.lineno)


def allowance(_before: PythonSource, transform: _Parameters) -> Allowance:
    """The lines around the call, or the method that overrides the inherited one."""
    return Allowance(adds=lambda node: _adds(node, transform.function), wraps=_wraps)


def _adds(node: ast.stmt, function: str) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == function and is_code(node, _OVERRIDE.format(function=function))
    if isinstance(node, ast.Assign):
        numpy = re.search(r"\[([\w.]+)\.core\.", ast.unparse(node))
        return numpy is not None and is_code(node, _NAMES.format(numpy=numpy.group(1)))
    return isinstance(node, ast.ImportFrom) and is_code(node, _IMPORT)


def _wraps(node: ast.stmt) -> bool:
    return isinstance(node, ast.With) and ast.dump(node.items[0].context_expr) == ast.dump(
        ast.parse(_CONTEXT, mode="eval").body
    )
