"""Make a training script leave the process group when its work is done."""

from __future__ import annotations

import libcst as cst

from glmpatch.patching.model import Notice, Rewrite
from glmpatch.patching.syntax.entry import Entry, calls_of, is_main_guard, last_name
from glmpatch.patching.syntax.python import PythonFile, Statement
from glmpatch.patching.syntax.search import find_nodes

DESTROY = "destroy_process_group"
# DistributedDataParallel keeps the group alive, and so its threads. One that gets to drop the tensors of the last
# collective only while the interpreter ends aborts the process. Seen with torch 2.13 and gloo on a busy machine: in 4
# of 10 runs of a minimal script with the call alone, in none of 20 with the pause. It makes the race unlikely, no more.
_PAUSE = [
    "from time import sleep",
    "sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts",
]
_ENDERS = frozenset({"SystemExit", "_exit", "abort", "exit", "quit"})


def leave_group(file: PythonFile, entry: Entry, call: list[str]) -> Rewrite:
    """Put a pause, and `call`, the lines that leave the group, at the end of the script.

    Not by `atexit`: that runs after an exception, too, where a rank would wait here for collectives that never end. A
    script that leaves the group somewhere is left alone; where there is no place for the call, a notice says so.
    """
    if any(site.node.value == DESTROY for site in find_nodes(file, cst.Name, [DESTROY])):
        return Rewrite()
    last = _last_statement(file, entry)
    if last is None or _ends_the_process(last):
        return Rewrite(notices=(Notice(f"no place found to call {DESTROY}() when the training is done"),))
    return Rewrite((file.insert_after(last, [*_PAUSE, *call]),))


def _last_statement(file: PythonFile, entry: Entry) -> Statement | None:
    """The last statement of the script when it is run; None for a module that runs nothing, or on one line."""
    guards = [node for node in file.module.body if isinstance(node, cst.If) and is_main_guard(file, node)]
    runs = entry.function is None or any(call.function is None for call in calls_of(file, entry.function))
    body = guards[-1].body.body if guards else file.module.body if runs else ()
    last = body[-1] if body else None
    return last if isinstance(last, Statement) else None


def _ends_the_process(statement: Statement) -> bool:
    """Whether nothing behind `statement` runs, as in `sys.exit(main())`."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return False
    last = statement.body[-1]
    value = last.value if isinstance(last, cst.Expr) else None
    return isinstance(last, cst.Raise) or (isinstance(value, cst.Call) and last_name(value.func) in _ENDERS)
