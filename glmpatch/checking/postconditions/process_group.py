"""What `process-group` promises: one call joins the group before the arguments are parsed, and the script leaves it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from glmpatch.checking.postconditions.broken import Broken
from glmpatch.checking.postconditions.python import (
    Allowance,
    Around,
    Function,
    PythonSource,
    Sources,
    called,
    dotted,
    function_around,
    is_code,
    position,
)

_MODULE = "torch.distributed"
_INIT = "init_process_group"
_DESTROY = "destroy_process_group"
_PARSES = frozenset(
    {"parse_args", "parse_args_into_dataclasses", "parse_dict", "parse_json_file", "parse_known_args"}
    | {"parse_yaml_file"}
)
_ENDERS = frozenset({"SystemExit", "_exit", "abort", "exit", "quit"})
_PAUSE = ("from time import sleep", "sleep(1)")
_ADDED = (
    "import torch",
    "import torch.distributed",
    "import torch.distributed as dist",
    "from torch.distributed import destroy_process_group",
)


class _Parameters(Protocol):
    backend: str


def find_broken(sources: Sources, transform: _Parameters) -> Iterator[Broken]:
    """Find what is wrong with the call, with its place, and with the end of the script."""
    source = sources[1]
    calls = list(_calls_of(source, _INIT))
    if len(calls) != 1:
        line = calls[1][0].lineno if calls else None
        yield Broken(f"one call of {_MODULE}.{_INIT}()", str(len(calls)), line)
        return
    ((call, around),) = calls
    if not isinstance(around[-1], ast.Expr):
        yield Broken(f"{_INIT}() as a statement of its own", ast.unparse(around[-1]), call.lineno)
    if _backend(call) != transform.backend or _argument_names(call) - {"backend", "timeout"}:
        yield Broken(f'{_INIT}(backend="{transform.backend}"), at most with a timeout', ast.unparse(call), call.lineno)
    yield from _find_wrong_place(source, call, around)
    yield from _find_wrong_end(source, sources[0], function_around(around))


def _backend(call: ast.Call) -> object:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "backend"]
    value = next(iter((*named, *call.args)), None)
    return value.value.lower() if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _argument_names(call: ast.Call) -> set[str]:
    return {keyword.arg or "**" for keyword in call.keywords} | {f"argument {n}" for n, _ in enumerate(call.args) if n}


def _calls_of(source: PythonSource, function: str) -> Iterator[tuple[ast.Call, Around]]:
    """The calls of a function of `torch.distributed`, under whatever name."""
    names = {function, *_aliases(source, function)}
    for call, around in source.calls:
        if called(call) in names and _target(call, around) == function:
            yield call, around


def _aliases(source: PythonSource, function: str) -> set[str]:
    imports = (node for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom))
    return {alias.asname or function for node in imports for alias in node.names if alias.name == function}


def _target(call: ast.Call, around: Around) -> str:
    """The function of `torch.distributed` that is called; empty for any other one."""
    head, dot, rest = dotted(call.func).partition(".")
    scopes = [node for node in reversed(around) if isinstance(node, ast.Module | Function)]
    for scope in scopes if head else ():
        bound = _bindings(scope).get(head)
        if bound is None:
            continue
        # In its own scope, an import below the call comes too late.
        targets = {target for target, place in bound if scope is not scopes[0] or place < position(call)}
        names = {(target + dot + rest).replace(".distributed_c10d.", ".") for target in targets}
        return next((name.removeprefix(f"{_MODULE}.") for name in names if name.startswith(f"{_MODULE}.")), "")
    return ""


@lru_cache(maxsize=2)
def _bindings(scope: ast.AST) -> dict[str, list[tuple[str, tuple[int, int]]]]:
    """What the imports of a scope bind each name to, and where. Nothing, for a name that a function binds otherwise."""
    bound: dict[str, list[tuple[str, tuple[int, int]]]] = defaultdict(list)
    for node in _in_scope(scope):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]
                bound[alias.asname or package].append((alias.name if alias.asname else package, position(node)))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                bound[alias.asname or alias.name].append((f"{node.module}.{alias.name}", position(node)))
        elif isinstance(scope, ast.Module):
            continue
        elif isinstance(node, ast.arg):
            bound.setdefault(node.arg, [])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.setdefault(node.id, [])
    return dict(bound)


def _in_scope(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or a function, without those of the functions and classes inside."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, Function | ast.ClassDef | ast.Lambda):
            yield from _in_scope(child)


def _find_wrong_place(source: PythonSource, call: ast.Call, around: Around) -> Iterator[Broken]:
    """Find what stands before or around the call and must not."""
    function = function_around(around)
    own = around[around.index(function) + 1 :] if function else around
    for node in own:
        is_guard = isinstance(node, ast.If) and ("is_initialized" in ast.unparse(node.test) or _is_main_guard(node))
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Expr) and not is_guard:
            yield Broken(
                f"{_INIT}() in no condition, loop, try or with", ast.unparse(node).splitlines()[0], node.lineno
            )
    makers = {*_PARSES, "HfArgumentParser"}
    sites = [(site, function_around(outer)) for site, outer in source.calls if called(site) in makers]
    starters = {place.name for _, place in sites if place is not None}
    if function is None:
        starts = [site for site, outer in source.calls if dotted(site.func) in starters and not function_around(outer)]
        late = [site for site, place in sites if place is None and called(site) in _PARSES] + starts
    else:
        late = [site for site, place in sites if place is function and called(site) in _PARSES]
        if all(place is not function for _, place in sites):
            yield Broken(f"{_INIT}() where the arguments are parsed", f"it is in {function.name}()", call.lineno)
    if any(position(site) < position(call) for site in late):
        line = min(site.lineno for site in late)
        yield Broken(f"{_INIT}() before the arguments are parsed on line {line}", "it comes later", call.lineno)


def _find_wrong_end(source: PythonSource, before: PythonSource, function: Function | None) -> Iterator[Broken]:
    """Find a script that does not leave the group at its end, though it has one."""
    if any(called(call) == _DESTROY for call, _ in before.calls):
        return
    block = _last_block(source, function)
    leaving = [(call, around) for call, around in source.calls if called(call) == _DESTROY]
    if not leaving:
        names = (node for node in ast.walk(source.tree) if isinstance(node, ast.Name | ast.Attribute))
        is_named = any(_DESTROY in {getattr(node, "id", ""), getattr(node, "attr", "")} for node in names)
        if block and not is_named and not _ends_the_process(block[-1]):
            yield Broken(f"{_DESTROY}() at the end of the script", "no such call", block[-1].lineno)
    for call, around in leaving:
        if _target(call, around) != _DESTROY:
            yield Broken(f"{_MODULE}.{_DESTROY}(), imported", ast.unparse(call), call.lineno)
        elif not block or around[-1] is not block[-1]:
            yield Broken(f"{_DESTROY}() as the last statement of the script", "it stands elsewhere", call.lineno)
        elif not all(any(is_code(node, code) for node in block[-4:]) for code in _PAUSE):
            yield Broken(f"a pause before {_DESTROY}()", "none", call.lineno)


def _last_block(source: PythonSource, function: Function | None) -> list[ast.stmt]:
    """What runs last when the file is run; empty for a module that runs nothing, or on the line of an `if`."""
    guards = [node for node in source.tree.body if isinstance(node, ast.If) and _is_main_guard(node)]
    if guards:
        return guards[-1].body if guards[-1].body[0].lineno > guards[-1].lineno else []
    calls = [call for call, around in source.calls if function_around(around) is None]
    names = {function.name} if function else {*_parsing_functions(source)}
    parses = function is None and any(called(call) in _PARSES for call in calls)
    return source.tree.body if parses or any(dotted(call.func) in names for call in calls) else []


def _parsing_functions(source: PythonSource) -> Iterator[str]:
    for call, around in source.calls:
        function = function_around(around)
        if function is not None and called(call) in {*_PARSES, "HfArgumentParser"}:
            yield function.name


def _is_main_guard(node: ast.If) -> bool:
    return not node.orelse and ast.unparse(node.test) == "__name__ == '__main__'"


def _ends_the_process(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(node, ast.Raise) or (isinstance(value, ast.Call) and called(value) in _ENDERS)


def allowance(before: PythonSource, _transform: object) -> Allowance:
    """The call, and what leaves the group. They are judged above."""
    aliases = _aliases(before, _INIT)
    return Allowance(adds=lambda node: _adds(node, aliases), normal=lambda node: _normal(node, aliases))


def _adds(node: ast.stmt, aliases: set[str]) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call):
        return called(call) == _DESTROY or _joins(node, aliases) or is_code(node, "sleep(1)")
    return isinstance(node, ast.Import | ast.ImportFrom) and any(is_code(node, code) for code in (*_PAUSE, *_ADDED))


def _normal(node: ast.AST, aliases: set[str]) -> ast.AST:
    """The call with its timeout alone, and an `if` between several such calls as the last of them."""
    choice = node
    while isinstance(choice, ast.If) and len(choice.body) == len(choice.orelse) == 1:
        if not _joins(choice.body[0], aliases):
            return node
        choice = choice.orelse[0]
    call = choice.value if isinstance(choice, ast.Expr) else None
    if not isinstance(call, ast.Call) or not _joins(choice, aliases):
        return node
    timeouts = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"] or call.args[2:3]
    return ast.Expr(ast.Call(call.func, timeouts, []))


def _joins(node: ast.AST, aliases: set[str]) -> bool:
    """Whether the statement looks like a call of `init_process_group()`."""
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and (called(call) == _INIT or dotted(call.func) in aliases)
