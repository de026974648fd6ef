"""What `frozen-broadcast` promises: DDP is told what not to broadcast, on every way to a trainer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from glmpatch.checking.postconditions.broken import Broken
from glmpatch.checking.postconditions.python import Allowance, Around, Sources, called, dotted, is_code

_IGNORED = "_ddp_params_and_buffers_to_ignore"
_TELLING = f"""{{model}}.{_IGNORED} = [
    *(name for name, parameter in {{model}}.named_parameters() if not parameter.requires_grad),
    *(name for name, _ in {{model}}.named_buffers()),
]"""


def find_broken(sources: Sources, _transform: object) -> Iterator[Broken]:
    """Find a trainer that is made before DDP is told."""
    made = [(call, around) for call, around in sources[1].calls if _makes_trainer(call, around)]
    if not made:
        yield Broken("a trainer that is made", "none")
    for call, around in made:
        model = _model(call)
        if not any(model and _told(node) == model for node in _run_before(around)):
            yield Broken(f"{model or 'the model'}.{_IGNORED} set before the trainer is made", "not set", call.lineno)


def _makes_trainer(call: ast.Call, around: Around) -> bool:
    return called(call).endswith("Trainer") and isinstance(around[-1], ast.Assign | ast.AnnAssign)


def _model(call: ast.Call) -> str:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "model"]
    return next((dotted(value) for value in (*named, *call.args)), "")


def _run_before(around: Around) -> Iterator[ast.AST]:
    """The statements of the blocks around a node that stand before it."""
    for outer, inner in pairwise(around):
        for block in (getattr(outer, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(block, list) and inner in block:
                yield from block[: block.index(inner)]


def _told(node: ast.AST) -> str:
    """The model that DDP is told about; empty for another statement."""
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return dotted(target.value) if isinstance(target, ast.Attribute) and target.attr == _IGNORED else ""


def _adds(node: ast.stmt) -> bool:
    model = _told(node)
    return bool(model) and is_code(node, _TELLING.format(model=model))


ALLOWANCE = Allowance(adds=_adds)
