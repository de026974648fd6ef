"""Let a trainer resume from its own checkpoint with torch >= 2.6, whose `torch.load` refuses NumPy's state.

The file with the state of the random number generators holds a NumPy array. `weights_only=False` would load it, and
run whatever else stands in a file from elsewhere. Four allowed names are enough, and only around that one call.
"""

from __future__ import annotations

from typing import ClassVar

import libcst as cst

from glmpatch.patching.model import Refusal, Replacement, Rewrite, Transform
from glmpatch.patching.syntax.imports import imported_names
from glmpatch.patching.syntax.parts import definitions
from glmpatch.patching.syntax.python import PythonFile, Statement, read_python
from glmpatch.patching.syntax.search import Site, find_nodes, plain_name

_SET_STATE = ".random.set_state"


class CheckpointResume(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Allow the names that NumPy's random state needs, around the call that loads it.

    Where the trainer inherits the method from transformers, an override is put at the end of the class.

    Args:
        function: The method that restores the random state. It takes the folder of the checkpoint.
    """

    name: ClassVar[str] = "checkpoint-resume"

    function: str = "_load_rng_state"

    def rewrite(self, data: bytes) -> Rewrite:
        """Put the loading call under a `with`, or override the inherited method."""
        functions = definitions(data, self.function)
        if not functions:
            return Rewrite((self._override(read_python(data)),))
        replacements: list[Replacement] = []
        for file, function in functions:
            load = self._load_in(file, function)
            if not _is_allowed(file, load):
                replacements += _allow(file, function, load)
        return Rewrite(tuple(replacements))

    def _load_in(self, file: PythonFile, function: cst.FunctionDef) -> Site[cst.Call]:
        """The one call in the method that reads the file."""
        sites = find_nodes(file, cst.Call, ["load", self.function])
        loading = ("torch.load", f"super().{self.function}")
        loads = [site for site in sites if file.code(site.node.func) in loading]
        if len(loads) != 1:
            file.refuse(loads[1].node if loads else function, f"one call of torch.load() in {self.function}()")
        return loads[0]

    def _override(self, file: PythonFile) -> Replacement:
        trainer = self._trainer_class(file)
        first, last = _body(file, trainer)
        step = file.indent_of(first).removeprefix(file.indent_of(trainer))
        allow = _allowing_lines("np")
        allow.insert(1, "import numpy as np")
        body = [*allow, f"{step}super().{self.function}(checkpoint)"]
        lines = ["", f"def {self.function}(self, checkpoint):", *(step + line for line in body)]
        return file.insert_after(last, lines)

    def _trainer_class(self, file: PythonFile) -> cst.ClassDef:
        expected = f"a method {self.function}(), or one class that inherits it from transformers' Trainer"
        imports = list(imported_names(file))
        bases = {name.name for name in imports if name.origin.startswith("transformers.") and "Trainer" in name.origin}
        classes = [site.node for site in find_nodes(file, cst.ClassDef, bases)]
        trainers = [node for node in classes if any(plain_name(base.value) in bases for base in node.bases)]
        if not trainers:
            raise Refusal(expected, "neither", hint="see how this trainer resumes from a checkpoint")
        if len(trainers) > 1:
            file.refuse(trainers[1], expected)
        if not any(name.name == name.target == "torch" and name.is_at_top for name in imports):
            file.refuse(trainers[0], "`import torch` at the top of the module")
        return trainers[0]


def _is_allowed(file: PythonFile, load: Site[cst.Call]) -> bool:
    """Whether the call already loads the state: under allowed names, or because it loads anything."""
    for argument in load.node.args:
        if argument.keyword is not None and argument.keyword.value == "weights_only":
            if plain_name(argument.value) != "False":
                file.refuse(load.node, "torch.load() without weights_only")
            return True
    contexts = (item.item for node in load.parents if isinstance(node, cst.With) for item in node.items)
    return any("safe_globals" in file.code(context) for context in contexts)


def _allow(file: PythonFile, function: cst.FunctionDef, load: Site[cst.Call]) -> tuple[Replacement, Replacement]:
    """Put the statement of `load` under a `with`: the lines before it, and one more step of indentation."""
    if not isinstance(load.statement, cst.SimpleStatementLine):
        file.refuse(load.node, "torch.load() in a statement on a line of its own")
    first, _ = _body(file, function)
    step = file.indent_of(first).removeprefix(file.indent_of(function))
    start = file.span(load.statement).start
    lines = _allowing_lines(_numpy_name(file, load.node))
    return file.insert_before(load.statement, lines), Replacement(start, start, step.encode())


def _numpy_name(file: PythonFile, load: cst.Call) -> str:
    """What the method calls NumPy: it gives the state back with `<numpy>.random.set_state()`."""
    called = [plain_name(site.node.func) for site in find_nodes(file, cst.Call, ["set_state"])]
    names = [name.removesuffix(_SET_STATE) for name in called if name.endswith(_SET_STATE)]
    if not names:
        file.refuse(load, f"the state given back with <numpy>{_SET_STATE}() in the same method")
    return names[0]


def _allowing_lines(numpy: str) -> list[str]:
    """The lines that open a block in which NumPy's random state may be loaded, under any torch."""
    names = ("core.multiarray._reconstruct", "ndarray", "dtype")
    listed = ", ".join(f"{numpy}.{name}" for name in names)
    return [
        "from contextlib import nullcontext",
        "# torch >= 2.6 loads NumPy's random state only where these names are allowed; torch < 2.5 has no such list.",
        f'numpy_names = [{listed}, type({numpy}.dtype("uint32"))]',
        'with getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names):',
    ]


def _body(file: PythonFile, definition: cst.FunctionDef | cst.ClassDef) -> tuple[Statement, Statement]:
    """The first and the last statement of a definition.

    Raises:
        Refusal: They stand on the line of the definition.
    """
    statements = [part for part in definition.body.body if isinstance(part, Statement)]
    if not statements:
        file.refuse(definition, "statements on lines of their own")
    return statements[0], statements[-1]
