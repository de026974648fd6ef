"""Find the live call of `init_process_group`, and see that it surely runs, once, before the arguments are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from glmpatch.patching.model import Refusal
from glmpatch.patching.syntax.entry import Entry, calls_of, is_main_guard, last_name
from glmpatch.patching.syntax.names import Names
from glmpatch.patching.syntax.python import PythonFile, Span
from glmpatch.patching.syntax.search import Site, find_nodes, plain_name, walk

INIT = "torch.distributed.init_process_group"
_INITS = frozenset({INIT, "torch.distributed.distributed_c10d.init_process_group"})
_IS_INITIALIZED = "torch.distributed.is_initialized"
_IS_AVAILABLE = "torch.distributed.is_available"
# Calls in a condition that can be dropped with it: they ask, and change nothing.
_QUESTIONS = frozenset(
    {"bool", "device_count", "endswith", "get", "getattr", "getenv", "hasattr", "int", "is_available"}
    | {"is_nccl_available", "len", "lower", "startswith", "str", "system", "upper"}
)


@dataclass(frozen=True, slots=True)
class InitCall:
    """The call of `init_process_group` in a file.

    Attributes:
        sites: The call, or the calls of which an `if/else` picks one.
        choice: That `if`; None for a call that stands alone.
    """

    sites: tuple[Site[cst.Call], ...]
    choice: cst.If | None = None

    def span(self, file: PythonFile) -> Span:
        """The bytes of the call; those of the `if`, to the end of its last call."""
        if self.choice is None:
            return file.span(self.sites[0].node)
        return Span(file.span(self.choice).start, file.span(self.sites[-1].parents[-1]).end)


def find_init_call(file: PythonFile, names: Names, entry: Entry) -> InitCall | None:
    """The call that makes the process group; None if the file has none.

    Raises:
        Refusal: It is not clear whether a call is one of torch's, or the call does not stand by itself before the
            arguments are parsed.
    """
    sites = _live_calls(file, names)
    if not sites:
        return None
    for site in sites:
        if not isinstance(site.parents[-1], cst.Expr):
            file.refuse(site.node, "init_process_group() as a statement of its own, not as a part of an expression")
    init = _one_call(file, sites)
    for site in sites:
        _check_order(file, entry, site)
    _check_surroundings(file, names, init)
    return init


def _live_calls(file: PythonFile, names: Names) -> tuple[Site[cst.Call], ...]:
    aliases = {imported.name for imported in names.imports if imported.target in _INITS}
    calls = []
    for site in find_nodes(file, (cst.Name, cst.Attribute), {"init_process_group", *aliases}):
        if not _names_init(site, aliases):
            continue
        origin = names.origin(plain_name(site.node), site.scopes)
        if origin is None:
            file.refuse(
                site.node,
                "an init_process_group that surely is torch.distributed's, or surely is not",
                hint="import torch.distributed as dist at the top, and bind `dist` to nothing else",
            )
        if origin not in _INITS:
            continue
        call = site.parents[-1]
        if not isinstance(call, cst.Call) or call.func is not site.node:
            file.refuse(site.node, "init_process_group called where it is named, not handed on")
        calls.append(Site(call, site.parents[:-1]))
    return tuple(calls)


def _names_init(site: Site[cst.BaseAssignTargetExpression], aliases: set[str]) -> bool:
    """Whether the node is `....init_process_group` or an alias of it, and no definition or import of that name."""
    node, parent = site.node, site.parents[-1]
    if isinstance(parent, cst.ImportAlias | cst.AsName | cst.FunctionDef | cst.ClassDef | cst.Param | cst.NameItem):
        return False
    if isinstance(node, cst.Attribute):
        return node.attr.value == "init_process_group"
    is_word = isinstance(parent, cst.Attribute) or (isinstance(parent, cst.Arg) and parent.keyword is node)
    return isinstance(node, cst.Name) and node.value in {"init_process_group", *aliases} and not is_word


def _one_call(file: PythonFile, sites: tuple[Site[cst.Call], ...]) -> InitCall:
    if len(sites) == 1:
        return InitCall(sites)
    calls = [site.node for site in sites]
    for node in sites[0].parents:
        if isinstance(node, cst.If) and _branch_values(node) == calls:
            _check_questions(file, node)
            return InitCall(sites, node)
    lines = [file.line(call) for call in calls]
    raise Refusal(
        "one call of init_process_group, or an if/else with such a call, and nothing else, in each branch",
        f"calls on lines {', '.join(map(str, lines))}",
        hint="keep one of them, before the arguments are parsed",
        line=lines[1],
    )


def _branch_values(choice: cst.If) -> list[cst.BaseExpression | None]:
    """What each branch consists of, None for more than an expression; empty if there is no last `else`."""
    values = []
    branch: cst.If | cst.Else | None = choice
    while isinstance(branch, cst.If):
        values.append(_sole_expression(branch.body))
        branch = branch.orelse
    return [] if branch is None else [*values, _sole_expression(branch.body)]


def _sole_expression(suite: cst.BaseSuite) -> cst.BaseExpression | None:
    parts: Sequence[cst.CSTNode] = suite.body
    if len(parts) == 1 and isinstance(parts[0], cst.SimpleStatementLine):
        parts = parts[0].body
    return parts[0].value if len(parts) == 1 and isinstance(parts[0], cst.Expr) else None


def _check_questions(file: PythonFile, choice: cst.If) -> None:
    """Refuse an `if` whose conditions do more than ask: they could not be dropped with it."""
    branch: cst.If | cst.Else | None = choice
    while isinstance(branch, cst.If):
        for node in (site.node for site in walk(branch.test)):
            acts = isinstance(node, cst.NamedExpr | cst.Await | cst.Yield)
            if acts or (isinstance(node, cst.Call) and last_name(node.func) not in _QUESTIONS):
                file.refuse(branch, "a condition between calls of init_process_group() that only asks something")
        branch = branch.orelse


def _check_order(file: PythonFile, entry: Entry, site: Site[cst.Call]) -> None:
    """Refuse a call in a function other than the one that parses, and a call after the arguments are parsed."""
    if site.function is not None and site.function is not entry.function:
        file.refuse(
            site.node,
            f"init_process_group() in the code that parses the arguments (line {file.line(entry.parse)})",
            hint=f"move it there from {site.function.name.value}()",
        )
    deadline: cst.CSTNode = entry.parse
    if site.function is None and entry.function is not None:
        starts = [call.node for call in calls_of(file, entry.function) if call.function is None]
        deadline = starts[0] if starts else entry.top
    if file.span(site.node).start > file.span(deadline).start:
        file.refuse(
            site.node,
            f"init_process_group() before the arguments are parsed (line {file.line(deadline)})",
            hint="it comes too late: the arguments already ask for the rank; move it up",
        )


def _check_surroundings(file: PythonFile, names: Names, init: InitCall) -> None:
    """Refuse a call that might not run, or might run twice, because of the statements around it."""
    site = init.sites[0]
    function = site.function
    around = site.parents if init.choice is None else site.parents[: site.parents.index(init.choice)]
    for node in reversed(around):
        if node is function:
            return
        if not isinstance(node, cst.BaseCompoundStatement) or _asks_whether_initialized(names, node, site.scopes):
            continue
        if function is None and is_main_guard(file, node):
            continue
        raise Refusal(
            "init_process_group() by itself, in no condition, loop, try or with",
            f"`{file.code(node).splitlines()[0]}` around it, on line {file.line(node)}",
            hint="move the call out, before the arguments are parsed",
            line=file.line(site.node),
        )


def _asks_whether_initialized(names: Names, node: cst.CSTNode, scopes: tuple[str, ...]) -> bool:
    """Whether `node` is `if not dist.is_initialized():`, also with `dist.is_available() and`, and no `else`."""
    if not isinstance(node, cst.If) or node.orelse is not None:
        return False
    test = node.test
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.And):
        if not _is_call_of(names, test.left, _IS_AVAILABLE, scopes):
            return False
        test = test.right
    if not isinstance(test, cst.UnaryOperation) or not isinstance(test.operator, cst.Not):
        return False
    return _is_call_of(names, test.expression, _IS_INITIALIZED, scopes)


def _is_call_of(names: Names, node: cst.BaseExpression, origin: str, scopes: tuple[str, ...]) -> bool:
    return isinstance(node, cst.Call) and names.origin(plain_name(node.func), scopes) == origin
