"""What `precision` promises: the model is cast to the dtype of the CPU and stays there, all else is cast as before."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import NamedTuple, Protocol

from glmpatch.checking.postconditions.broken import Broken
from glmpatch.checking.postconditions.python import Allowance, Around, PythonSource, Sources, called, dotted

_TARGETS = {"bf16": "bfloat16", "fp32": "float"}
_CASTS = frozenset({"half", "bfloat16", "float"})
_CHAINED = _CASTS | {"cuda", "eval", "train", "requires_grad_"}
_GPU = re.compile(r"(?:cuda|mps)(?::\d+)?")
_GPU_CHECKS = frozenset({"torch.cuda.is_available", "torch.backends.mps.is_available"})


class _Parameters(Protocol):
    dtype: str
    must_cast: bool


class _Chain(NamedTuple):
    """A chain of calls that casts or moves: its code, as it should be and as it is, and its line."""

    wanted: str
    code: str
    line: int
    needs_gpu: bool


def find_broken(sources: Sources, transform: _Parameters) -> Iterator[Broken]:
    """Find a cast that is wrong, lost or new, and one that only runs with a GPU and was touched."""
    target = _TARGETS[transform.dtype]
    before, after = (list(_chains(source, target)) for source in sources)
    for needs_gpu in (False, True):
        old = [chain for chain in before if chain.needs_gpu is needs_gpu]
        new = [chain for chain in after if chain.needs_gpu is needs_gpu]
        for one, other in zip_longest(old, new):
            wanted = "no other cast" if one is None else one.code if needs_gpu else one.wanted
            found = "none" if other is None else other.code
            if wanted != found:
                yield Broken(wanted, found, other and other.line)
                return
    if transform.must_cast and not any(f".{target}()" in chain.code for chain in after if not chain.needs_gpu):
        yield Broken(f"a cast by .{target}()", "none")


def _chains(source: PythonSource, target: str) -> Iterator[_Chain]:
    """The longest chains of a file that cast or move something, in source order."""
    modules = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    inner: set[int] = set()
    for call, around in source.calls:
        links = list(_links(call))
        inner |= {id(link) for link in links[1:]}
        if id(call) in inner or not {_method(link) for link in links} & (_CASTS | {"cuda"}):
            continue
        function = links[-1].func
        if isinstance(function, ast.Attribute) and dotted(function.value) not in modules:
            wanted = ast.unparse(_recast(call, target))
            yield _Chain(wanted, ast.unparse(call), call.lineno, _needs_gpu(call, around))


def _links(node: ast.expr) -> Iterator[ast.Call]:
    """The calls of a chain, the last one first."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _method(node) in _CHAINED:
        yield node
        node = node.func.value


def _method(call: ast.Call) -> str:
    """The name of the method: `.to("cuda")` and `.to("mps")` are as good as `.cuda()`."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return "cuda" if called(call) == "to" and len(values) == 1 and _is_gpu(values[0]) else called(call)


def _is_gpu(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and dotted(node.func) == "torch.device" and node.args:
        node = node.args[0]
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_GPU.fullmatch(node.value))


def _recast(call: ast.Call, target: str) -> ast.expr:
    """The chain as it should be. A cast to another dtype than fp32 becomes the target, and so does a lone move."""
    links = list(_links(call))[::-1]
    function = links[0].func if links else None
    has_arguments = any(link.args and called(link) in {"half", "bfloat16", "cuda"} for link in links)
    if not isinstance(function, ast.Attribute) or has_arguments:
        return call
    chain = function.value
    is_cast = bool(_CASTS & {_method(link) for link in links})
    for link in links:
        method = _method(link)
        if method == "cuda" and is_cast:
            continue
        if method in {"half", "bfloat16", "cuda"}:
            is_cast = True
            chain = ast.Call(ast.Attribute(chain, target, ast.Load()), [], [])
        else:
            chain = ast.Call(ast.Attribute(chain, method, ast.Load()), link.args, link.keywords)
    return chain


class _Recast(ast.NodeTransformer):
    """Makes of each chain what it should be."""

    def __init__(self, target: str) -> None:
        self._target = target

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self.generic_visit(_recast(node, self._target))


def allowance(_before: PythonSource, transform: _Parameters) -> Allowance:
    """The casts, however they stand: they are judged above."""
    return Allowance(normal=lambda node: _normal(node, _TARGETS[transform.dtype]))


def _normal(node: ast.AST, target: str) -> ast.AST:
    if hasattr(node, "body"):
        return node
    recast: ast.AST = _Recast(target).visit(copy.deepcopy(node))
    return recast


def _needs_gpu(node: ast.AST, around: Around) -> bool:
    """Whether `node` runs only where `torch.cuda.is_available()`, or that of MPS, said yes."""
    for outer, inner in pairwise((*around, node)):
        if not isinstance(outer, ast.If | ast.IfExp):
            continue
        test, wanted = outer.test, outer.body
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, wanted = test.operand, outer.orelse
        is_inside = inner in wanted if isinstance(wanted, list) else inner is wanted
        if is_inside and _asks_for_gpu(test):
            return True
    return False


def _asks_for_gpu(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_asks_for_gpu, test.values))
    return isinstance(test, ast.Call) and dotted(test.func) in _GPU_CHECKS
