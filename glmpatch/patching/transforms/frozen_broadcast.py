"""Keep the frozen weights out of the broadcast with which `DistributedDataParallel` starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar

import libcst as cst

from glmpatch.patching.model import Refusal, Rewrite
from glmpatch.patching.syntax.python import PythonFile, PythonTransform
from glmpatch.patching.syntax.search import Ancestors, Site, find_nodes, plain_name

_IGNORED = "_ddp_params_and_buffers_to_ignore"
_TRAINER = re.compile(rb"\w*Trainer\b")


class FrozenBroadcast(PythonTransform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name the frozen parameters and the buffers to DDP, as what it need not broadcast, before the trainer is made."""

    name: ClassVar[str] = "frozen-broadcast"

    def rewrite_python(self, file: PythonFile) -> Rewrite:
        """Put the statement before the construction of the trainer."""
        names = {match.group().decode() for match in _TRAINER.finditer(file.data)}
        calls = (site for site in find_nodes(file, cst.Call, names) if _last_name(site.node) in names)
        constructions = [_construction(file, call) for call in calls]
        if not constructions:
            raise Refusal(
                "a trainer that is made as in trainer = Seq2SeqTrainer(model=model, ...)",
                "none",
                hint="see how this script makes its trainer",
            )
        _refuse_several(file, constructions)
        untold = _untold(file, constructions)
        return Rewrite(tuple(file.insert_above_comments(made.statement, _telling_lines(made.model)) for made in untold))


@dataclass(frozen=True, slots=True)
class _Construction:
    """`trainer = SomeTrainer(model=model)`: its line, the plain name of the model, and the nodes around the line."""

    statement: cst.SimpleStatementLine
    model: str
    parents: Ancestors


def _last_name(call: cst.Call) -> str:
    return plain_name(call.func).rpartition(".")[2]


def _construction(file: PythonFile, call: Site[cst.Call]) -> _Construction:
    *parents, line, assignment = call.parents
    if not isinstance(assignment, cst.Assign | cst.AnnAssign):
        file.refuse(call.node, "a trainer that is assigned where it is made")
    if any(isinstance(around, cst.For | cst.While) for around in parents):
        file.refuse(call.node, "a trainer that is made once, not in a loop")
    if not isinstance(line, cst.SimpleStatementLine) or line.body[0] is not assignment:
        file.refuse(call.node, "a trainer that is made on a line of its own")
    return _Construction(line, _model_name(file, call.node), tuple(parents))


def _model_name(file: PythonFile, call: cst.Call) -> str:
    named = [argument for argument in call.args if argument.keyword is not None and argument.keyword.value == "model"]
    first = [argument for argument in call.args[:1] if argument.keyword is None and not argument.star]
    models = [argument.value for argument in named or first]
    if not models or not isinstance(models[0], cst.Name):
        file.refuse(call, f"{plain_name(call.func)}(model=<a plain name>, ...)")
    return models[0].value


def _refuse_several(file: PythonFile, constructions: list[_Construction]) -> None:
    """Refuse constructions of which more than one can run: they are not in the two branches of an `if`."""
    for first, second in combinations(constructions, 2):
        shared = [node for node in second.parents if node in first.parents]
        if not isinstance(shared[-1], cst.If):
            file.refuse(second.statement, "one trainer, or one in each branch of an if")


def _untold(file: PythonFile, constructions: list[_Construction]) -> list[_Construction]:
    """The constructions before which DDP is not told what to ignore.

    Raises:
        Refusal: It is told in a place that does not lead to a construction, or for another model.
    """
    told: dict[cst.CSTNode, str] = {
        site.parents[-1]: plain_name(target.target.value)
        for site in find_nodes(file, cst.Assign, [_IGNORED])
        for target in site.node.targets
        if isinstance(target.target, cst.Attribute) and target.target.attr.value == _IGNORED
    }
    leading: set[cst.CSTNode] = set()
    untold = []
    for construction in constructions:
        fitting = [node for node in _statements_before(construction) if told.get(node) == construction.model]
        leading.update(fitting)
        if not fitting:
            untold.append(construction)
    for node in told.keys() - leading:
        file.refuse(node, f"{constructions[0].model}.{_IGNORED} set on every way to the trainer")
    return untold


def _statements_before(construction: _Construction) -> Iterator[cst.CSTNode]:
    """The statements that have run before the construction, on whatever way it was reached."""
    for outer, inner in pairwise((*construction.parents, construction.statement)):
        if isinstance(outer, cst.Module | cst.IndentedBlock):
            for statement in outer.body:
                if statement is inner:
                    break
                yield statement


def _telling_lines(model: str) -> list[str]:
    return [
        "# Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.",
        f"{model}.{_IGNORED} = [",
        f"    *(name for name, parameter in {model}.named_parameters() if not parameter.requires_grad),",
        f"    *(name for name, _ in {model}.named_buffers()),",
        "]",
    ]
