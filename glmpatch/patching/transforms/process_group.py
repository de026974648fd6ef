"""Make a training script join the process group before it parses its arguments."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import libcst as cst

from glmpatch.patching.model import Backend, Notice, Refusal, Replacement, Rewrite
from glmpatch.patching.syntax.entry import Entry, find_entry
from glmpatch.patching.syntax.imports import ImportedName, add_imports
from glmpatch.patching.syntax.names import Names
from glmpatch.patching.syntax.python import PythonFile, PythonTransform, Span
from glmpatch.patching.syntax.search import find_nodes, plain_name, walk
from glmpatch.patching.transforms.init_call import INIT, InitCall, find_init_call
from glmpatch.patching.transforms.leave_group import DESTROY, leave_group

Arguments: TypeAlias = dict[str, cst.BaseExpression]

_MODULE = "torch.distributed"
_BACKENDS = ("ccl", "gloo", "mpi", "nccl")
# In the order of torch's signature.
_PARAMETERS = (
    "backend",
    "init_method",
    "timeout",
    "world_size",
    "rank",
    "store",
    "group_name",
    "pg_options",
    "device_id",
)
_KEPT = frozenset({"backend", "timeout"})
_OTHER_WAYS = frozenset(
    {
        "accelerate.Accelerator",
        "accelerate.PartialState",
        "accelerate.state.AcceleratorState",
        "accelerate.state.PartialState",
        "deepspeed.comm.init_distributed",
        "deepspeed.init_distributed",
    }
)
_CCL_BINDINGS = frozenset({"oneccl_bindings_for_pytorch", "torch_ccl"})


class ProcessGroup(PythonTransform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call `dist.init_process_group(backend=...)` before the arguments are parsed, and leave the group at the end.

    A call that is there is changed where it stands; else one is put first in the function that parses.

    Args:
        backend: The backend of the process group.
    """

    name: ClassVar[str] = "process-group"

    backend: Backend = "mpi"

    def rewrite_python(self, file: PythonFile) -> Rewrite:
        """Find where the arguments are parsed, and the call if there is one."""
        names = Names(file)
        entry = find_entry(file)
        _refuse_other_ways(file, names)
        init = find_init_call(file, names, entry)
        if init is None:
            above = [
                imported
                for imported in names.imports
                if imported.is_at_top and file.span(imported.site.node).start < file.span(entry.top).start
            ]
            function, imports = _spelling(file, names, entry, above)
            join = self._insert(file, entry, function, imports, above)
        else:
            function, imports = plain_name(init.sites[0].node.func), []
            join = self._replace(file, init)
        leave = leave_group(file, entry, _leaving_lines(names, function, known=bool(imports)))
        notices = join.notices + leave.notices + self._missing_bindings(names)
        return Rewrite(join.replacements + leave.replacements, notices)

    def _insert(
        self, file: PythonFile, entry: Entry, function: str, imports: list[str], above: list[ImportedName]
    ) -> Rewrite:
        call = file.insert_above_comments(entry.first, [f'{function}(backend="{self.backend}")'])
        if not imports:
            return Rewrite((call,))
        return Rewrite((add_imports(file, above, imports, after="torch", ahead_of=("torch", "transformers")), call))

    def _replace(self, file: PythonFile, init: InitCall) -> Rewrite:
        calls = [(site.node, _arguments(file, site.node)) for site in init.sites]
        right = [_backend(file, call, arguments) == self.backend for call, arguments in calls]
        first, arguments = calls[0]
        if init.choice is None and all(right) and arguments.keys() <= _KEPT:
            return Rewrite()
        timeout = _timeout(file, arguments)
        for call, others in calls:
            if _timeout(file, others) != timeout:
                file.refuse(call, "the same timeout in each branch", hint="make the timeouts equal")
        span = init.span(file)
        _refuse_comments(file, init.choice or first, span)
        code = f'{file.code(first.func)}(backend="{self.backend}"{timeout})'
        return Rewrite((Replacement(span.start, span.end, code.encode()),), _tell_dropped(file, calls))

    def _missing_bindings(self, names: Names) -> tuple[Notice, ...]:
        packages = {imported.target.partition(".")[0] for imported in names.imports}
        if self.backend != "ccl" or packages & _CCL_BINDINGS:
            return ()
        return (Notice("torch knows the ccl backend only after `import oneccl_bindings_for_pytorch`: add it"),)


def _refuse_other_ways(file: PythonFile, names: Names) -> None:
    """Refuse a file in which another library makes the process group: torch allows one."""
    for site in find_nodes(file, cst.Call, {way.rpartition(".")[2] for way in _OTHER_WAYS}):
        if names.origin(plain_name(site.node.func), site.scopes) in _OTHER_WAYS:
            file.refuse(site.node, "only init_process_group() to make the process group", hint="take the call out")


def _spelling(file: PythonFile, names: Names, entry: Entry, above: list[ImportedName]) -> tuple[str, list[str]]:
    """How a new call names the function, and the import lines that it needs."""

    def stands_for(name: str, origin: str) -> bool:
        head = name.partition(".")[0]
        return names.is_of_module(head, entry.scopes) and names.origin(name, ()) == origin

    for imported in above:
        name = imported.name if imported.origin == imported.target else imported.target
        if imported.target in {_MODULE, INIT} and stands_for(name, imported.target):
            return (name if imported.target == INIT else f"{name}.init_process_group"), []
    if names.is_free("dist", entry.scopes):
        has_torch = any(imported.target == "torch" for imported in above) or not names.is_free("torch", ())
        return "dist.init_process_group", [*([] if has_torch else ["import torch"]), f"import {_MODULE} as dist"]
    if names.is_free("torch", entry.scopes) or stands_for("torch", "torch"):
        return INIT, [f"import {_MODULE}"]
    raise Refusal(
        "`dist` or `torch` free to stand for torch's modules",
        "both names are, or may be, something else",
        hint="import torch.distributed as dist at the top of the file",
        line=file.line(entry.first),
    )


def _leaving_lines(names: Names, function: str, *, known: bool) -> list[str]:
    """How the end of the module leaves the group that `function` made.

    Args:
        names: The names of the file.
        function: How the call that makes the group names its function.
        known: Whether the module of `function` is imported at the top, by a line that is new.
    """
    module, dot, _ = function.rpartition(".")
    if dot and (known or names.origin(function, ()) == INIT):
        return [f"{module}.{DESTROY}()"]
    return [f"from {_MODULE} import {DESTROY}", f"{DESTROY}()"]


def _arguments(file: PythonFile, call: cst.Call) -> Arguments:
    """The arguments by the name of their parameter."""
    arguments = {}
    for position, argument in enumerate(call.args):
        positional = _PARAMETERS[position] if position < len(_PARAMETERS) else ""
        name = argument.keyword.value if argument.keyword else positional
        if argument.star or name not in _PARAMETERS:
            file.refuse(call, f"init_process_group() with arguments among {', '.join(_PARAMETERS)}")
        arguments[name] = argument.value
    return arguments


def _backend(file: PythonFile, call: cst.Call, arguments: Arguments) -> str | None:
    """The backend that the call names; None if it leaves the choice to torch."""
    if "backend" not in arguments:
        return None
    value = arguments["backend"]
    name = value.evaluated_value if isinstance(value, cst.SimpleString) else None
    if not isinstance(name, str) or name.lower() not in _BACKENDS:
        file.refuse(call, f"one of the backends {', '.join(_BACKENDS)}, written as a string")
    return name.lower()


def _timeout(file: PythonFile, arguments: Arguments) -> str:
    """The timeout as it stands in the file, ready to follow another argument; empty if there is none."""
    if "timeout" not in arguments:
        return ""
    value = arguments["timeout"]
    code = file.code(value)
    return f", timeout=({code})" if value.lpar else f", timeout={code}"


def _tell_dropped(file: PythonFile, calls: list[tuple[cst.Call, Arguments]]) -> tuple[Notice, ...]:
    given = {name for _, arguments in calls for name in arguments}
    dropped = [name for name in _PARAMETERS if name in given - _KEPT]
    line = file.line(calls[0][0])
    return (Notice(f"dropped from init_process_group(): {', '.join(dropped)}", line),) if dropped else ()


def _refuse_comments(file: PythonFile, node: cst.CSTNode, span: Span) -> None:
    """Refuse to lose a comment in the bytes that are replaced. One behind them stays where it is."""
    for site in walk(node):
        if isinstance(site.node, cst.Comment) and span.start < file.span(site.node).start < span.end:
            file.refuse(site.node, "no comment inside what is replaced", hint="move the comment above, then try again")
