"""Find where a training script parses its arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

from glmpatch.patching.model import Refusal
from glmpatch.patching.syntax.python import PythonFile, Statement, below_docstring
from glmpatch.patching.syntax.search import Site, find_nodes

_PARSER = "HfArgumentParser"
_DATACLASS_PARSES = frozenset({"parse_args_into_dataclasses", "parse_json_file", "parse_yaml_file", "parse_dict"})
_PLAIN_PARSES = frozenset({"parse_args", "parse_known_args"})
_EXPECTED = "one function that parses the arguments (HfArgumentParser, parse_args)"


@dataclass(frozen=True, slots=True)
class Entry:
    """The function, or the module-level code, that parses the arguments.

    Attributes:
        function: The function; None for module-level code.
        sites: Its calls that make the parser or parse, in source order.
        top: The statement of the module that holds the first of these calls.
        first: The statement before which code must go that is to run before all of them: the first one of the
            function or of the `if __name__ == "__main__"` block, else `top`.
    """

    function: cst.FunctionDef | None
    sites: tuple[Site[cst.Call], ...]
    top: Statement
    first: Statement

    @property
    def scopes(self) -> tuple[str, ...]:
        """The names of the functions and classes around the code, from the module inwards."""
        return self.sites[0].scopes

    @property
    def parse(self) -> cst.Call:
        """The first call that parses; where there is none, the one that makes the parser."""
        parses = (site.node for site in self.sites if last_name(site.node.func) != _PARSER)
        return next(parses, self.sites[0].node)


def find_entry(file: PythonFile) -> Entry:
    """The one place of `file` that parses the arguments.

    Where several do, it is the one that calls the others; then the one that fills dataclasses; then the one that the
    module itself calls.

    Raises:
        Refusal: There is no such place, or it is not clear which of several it is.
    """
    places: dict[cst.FunctionDef | None, list[Site[cst.Call]]] = defaultdict(list)
    for site in find_nodes(file, cst.Call, {_PARSER, *_DATACLASS_PARSES, *_PLAIN_PARSES}):
        if _fills_dataclasses(site.node) or last_name(site.node.func) in _PLAIN_PARSES:
            places[site.function].append(site)
    if not places:
        raise Refusal(_EXPECTED, "no call that does", hint="is this a training script?")
    function = next(iter(places)) if len(places) == 1 else _choose(file, places)
    return _entry(file, function, places[function])


def is_main_guard(file: PythonFile, node: cst.CSTNode) -> bool:
    """Whether `node` is `if __name__ == "__main__":` without an `else`."""
    if not isinstance(node, cst.If) or node.orelse is not None:
        return False
    return file.code(node.test).replace("'", '"').replace(" ", "") == '__name__=="__main__"'


def calls_of(file: PythonFile, function: cst.FunctionDef) -> list[Site[cst.Call]]:
    """The calls of `function` by its bare name, in source order."""
    return [
        site
        for site in find_nodes(file, cst.Call, [function.name.value])
        if isinstance(site.node.func, cst.Name) and site.node.func.value == function.name.value
    ]


def last_name(expression: cst.BaseExpression) -> str:
    """`c` of `a.b().c`; empty for what is no name or attribute."""
    last = expression.attr if isinstance(expression, cst.Attribute) else expression
    return last.value if isinstance(last, cst.Name) else ""


def _fills_dataclasses(call: cst.Call) -> bool:
    name = last_name(call.func)
    return name == _PARSER or (isinstance(call.func, cst.Attribute) and name in _DATACLASS_PARSES)


def _choose(file: PythonFile, places: Mapping[cst.FunctionDef | None, list[Site[cst.Call]]]) -> cst.FunctionDef | None:
    callers: dict[cst.FunctionDef | None, set[cst.FunctionDef | None]] = {
        place: {site.function for site in calls_of(file, place)} - {place} if place else set() for place in places
    }
    left = [place for place in places if not callers[place] or callers[place] - places.keys()]
    if len(left) > 1:
        left = [place for place in left if any(_fills_dataclasses(site.node) for site in places[place])] or left
    if len(left) > 1:
        left = [place for place in left if None in callers[place]]
    if len(left) == 1:
        return left[0]
    lines = sorted(file.line(sites[0].node) for sites in places.values())
    raise Refusal(
        _EXPECTED, f"several that do, on lines {', '.join(map(str, lines))}", hint="parse in one place", line=lines[1]
    )


def _entry(file: PythonFile, function: cst.FunctionDef | None, sites: list[Site[cst.Call]]) -> Entry:
    top = next(node for node in sites[0].parents if isinstance(node, Statement))
    first = top
    if function is not None:
        first = _first_statement(file, function, below_docstring(function))
    elif isinstance(top, cst.If) and is_main_guard(file, top):
        first = _first_statement(file, top, top.body.body)
    return Entry(function, tuple(sites), top, first)


def _first_statement(file: PythonFile, block: cst.FunctionDef | cst.If, body: Sequence[cst.CSTNode]) -> Statement:
    first = next(iter(body), None)
    if not isinstance(first, Statement):
        file.refuse(block, "the statements that parse the arguments on lines of their own")
    return first
