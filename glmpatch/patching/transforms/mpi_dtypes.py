"""bf16, fp16 and bool in PyTorch's own MPI backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import tree_sitter

from glmpatch.patching.model import Notice, Refusal, Replacement, Rewrite, Transform
from glmpatch.patching.syntax.cpp import CppFile, ancestors
from glmpatch.patching.transforms.mpi_helpers import HELPERS, NAMESPACE, find_helpers, squeeze

_DATATYPE_OF = f"{NAMESPACE}::datatypeOf"
_OP_FOR = f"{NAMESPACE}::opFor"
_TYPES = "mpiDatatype"
_OPS = "mpiOp"
# What a map from a key of c10d to a handle of MPI looks like, without white space.
_MAP_TYPES = {
    _TYPES: re.compile(r"(std::)?(unordered_)?map<((at|c10)::)?ScalarType,MPI_Datatype>"),
    _OPS: re.compile(r"(std::)?(unordered_)?map<(c10d::)?ReduceOp(::RedOpType)?,MPI_Op>"),
}
# The nodes around the name of a map: where it is defined, and where it is used.
_AROUND_MAP = ["init_declarator", "declaration", "declaration_list", "namespace_definition"]
_AROUND_USE = ["field_expression", "call_expression", "argument_list", "call_expression"]
_CARRIED = frozenset({"BFloat16", "Half", "Bool"})
# `data.scalar_type()`, `tensors[0].scalar_type()`: can be written a second time, as nothing happens in it.
_REPEATABLE = re.compile(r"\w+((\.|->)\w+|\[\w+\])*((\.|->)scalar_type\(\))?")


class MpiDtypes(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let every collective of c10d's MPI backend carry bf16, fp16 and bool, and reduce them.

    Two helpers go below the maps `mpiDatatype` and `mpiOp`, and each `.at(...)` of a map becomes a call of one. The
    reductions of bool are logical: a sum is an `or`, as with NCCL.
    """

    name: ClassVar[str] = "mpi-dtypes"

    def rewrite(self, data: bytes) -> Rewrite:
        """Insert the helpers and rewrite the uses of the maps."""
        file = CppFile(data)
        ours = find_helpers(file)
        maps = _Map.find(file, _TYPES), _Map.find(file, _OPS)
        types, ops = maps
        if types.scope != ops.scope:
            file.refuse(ops.declaration.start_byte, f"{_TYPES} and {_OPS} in one unnamed namespace")
        if not ours and types.carries_ours:
            line = file.line_at(types.declaration.start_byte)
            return Rewrite(notices=(Notice("has bf16, fp16 and bool without glmpatch: left alone", line),))
        last = max((found.declaration for found in maps), key=lambda node: node.end_byte)
        below = ours or last
        if below.parent != types.scope or below.start_byte < last.start_byte:
            file.refuse(below.start_byte, f"the namespace {NAMESPACE} below {_TYPES} and {_OPS}, beside them")
        uses = [_Use.read(file, name, below) for found in maps for name in found.others(ours)]
        if not uses and not ours:
            file.refuse(types.declaration.start_byte, f"collectives that ask {_TYPES}.at(...)")
        replacements = [replacement for use in uses for replacement in use.rewritten(file)]
        if not ours:
            replacements.append(file.insert_below(last, "\n" + HELPERS))
        return Rewrite(tuple(replacements))


@dataclass(frozen=True, slots=True)
class _Map:
    """One of the two maps.

    Attributes:
        name: How it is called.
        declaration: The statement that defines it.
        scope: The body of the namespace around it.
        carries_ours: Whether it has an entry for each of our types, whatever the MPI.
        names: Every place where it is named, the definition left out.
    """

    name: str
    declaration: tree_sitter.Node
    scope: tree_sitter.Node
    carries_ours: bool
    names: tuple[tree_sitter.Node, ...]

    @classmethod
    def find(cls, file: CppFile, name: str) -> _Map:
        """Find the one definition of `name`, and all other places where it stands."""
        expected = f"one map {name} of PyTorch's MPI backend, with its entries, in an unnamed namespace"
        nodes = file.find(name)
        defined = [node for node in nodes if node.parent and node.parent.type == "init_declarator"]
        if not defined:
            raise Refusal(expected, f"no definition of {name}", hint="is this ProcessGroupMPI.cpp?")
        if len(defined) > 1:
            file.refuse(defined[1].start_byte, expected)
        around = list(islice(ancestors(defined[0]), len(_AROUND_MAP)))
        if [node.type for node in around] != _AROUND_MAP or around[-1].child_by_field_name("name"):
            file.refuse(defined[0].start_byte, expected)
        declarator, declaration, scope, _ = around
        kind, value = declaration.child_by_field_name("type"), declarator.child_by_field_name("value")
        is_map = kind and _MAP_TYPES[name].fullmatch(squeeze(file.source(kind)))
        if not is_map or value is None or value.type != "initializer_list":
            file.refuse(defined[0].start_byte, expected)
        file.require_sound(declaration)
        keys = set(_keys(file, declaration, value))
        return cls(name, declaration, scope, keys >= _CARRIED, tuple(node for node in nodes if node != defined[0]))

    def others(self, ours: tree_sitter.Node | None) -> Iterator[tree_sitter.Node]:
        """The places where the map is named, besides its definition and the helpers."""
        for node in self.names:
            if ours is None or not ours.start_byte <= node.start_byte < ours.end_byte:
                yield node


def _keys(file: CppFile, declaration: tree_sitter.Node, entries: tree_sitter.Node) -> Iterator[str]:
    """What the map has an entry for without any condition: `Half` for `at::kHalf` and for `at::ScalarType::Half`."""
    for entry in entries.named_children:
        if entry.named_children and not file.is_conditional(declaration.start_byte, entry.start_byte):
            yield file.source(entry.named_children[0]).rpartition("::")[2].removeprefix("k")


@dataclass(frozen=True, slots=True)
class _Use:
    """An `.at(...)` of a map, as an argument of a call.

    Attributes:
        name: Which map.
        function: `mpiOp.at`.
        argument: What it is asked for.
        call: All of it.
        neighbours: The arguments of the call that it is one of.
    """

    name: str
    function: tree_sitter.Node
    argument: tree_sitter.Node
    call: tree_sitter.Node
    neighbours: tuple[tree_sitter.Node, ...]

    @classmethod
    def read(cls, file: CppFile, name: tree_sitter.Node, below: tree_sitter.Node) -> _Use:
        """Read the use of a map at one of its names."""
        text = file.source(name)
        around = list(islice(ancestors(name), len(_AROUND_USE)))
        arguments = around[1].child_by_field_name("arguments") if len(around) > 1 else None
        if (
            [node.type for node in around] != _AROUND_USE
            or squeeze(file.source(around[0])) != f"{text}.at"
            or arguments is None
            or len(arguments.named_children) != 1
        ):
            file.refuse(name.start_byte, f"{text} only as {text}.at(...), an argument of a call")
        function, call, neighbours, outer = around
        file.require_sound(outer)
        if name.start_byte < below.end_byte:
            file.refuse(name.start_byte, f"{text} used below the definitions of {_TYPES} and {_OPS} alone")
        return cls(text, function, arguments.named_children[0], call, tuple(neighbours.named_children))

    def rewritten(self, file: CppFile) -> Iterator[Replacement]:
        """The call of the helper."""
        name, *access = self.function.children
        yield file.replace(name, _DATATYPE_OF if self.name == _TYPES else _OP_FOR)
        # Each by itself, for there may be a comment between them.
        yield from (file.replace(part, "") for part in access)
        if self.name == _OPS:
            yield file.append(self.argument, f", {self._type(file)}")

    def _type(self, file: CppFile) -> str:
        """The dtype of what is reduced: the same call says it for its datatype."""
        expected = f"one {_TYPES}.at(...) beside {_OPS}.at(...), of a plain expression"
        found = {
            squeeze(file.source(arguments.named_children[0]))
            for node in self.neighbours
            if (function := node.child_by_field_name("function"))
            and squeeze(file.source(function)) in {f"{_TYPES}.at", _DATATYPE_OF}
            and (arguments := node.child_by_field_name("arguments"))
            and len(arguments.named_children) == 1
        }
        dtype = found.pop() if len(found) == 1 else ""
        if not _REPEATABLE.fullmatch(dtype):
            file.refuse(self.call.start_byte, expected)
        return dtype
