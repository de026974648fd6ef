"""An expectation: the trainer still has a CPU branch of autocast."""

from __future__ import annotations

from typing import ClassVar

import libcst as cst

from glmpatch.patching.model import Notice, Refusal, Rewrite, Transform
from glmpatch.patching.syntax.imports import imported_names
from glmpatch.patching.syntax.parts import definitions
from glmpatch.patching.syntax.python import PythonFile, read_python
from glmpatch.patching.syntax.search import find_nodes, plain_name


class CpuAutocast(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Change nothing, but see that `function` enters `autocast` on the CPU.

    Args:
        function: The method that chooses the context manager of a training step.
        autocast: The dotted name of the class that it must call.
    """

    name: ClassVar[str] = "cpu-autocast"
    is_guard: ClassVar[bool] = True

    function: str = "autocast_smart_context_manager"
    autocast: str = "torch.cpu.amp.autocast"

    def rewrite(self, data: bytes) -> Rewrite:
        """Find the function and, in it, the call."""
        functions = definitions(data, self.function)
        if not functions:
            return self._rewrite_heir(read_python(data))
        for file, function in functions:
            calls = find_nodes(file, cst.Call, [self.autocast.rpartition(".")[2]])
            if not any(plain_name(call.node.func) == self.autocast for call in calls):
                file.refuse(function, f"a call of {self.autocast}() in {self.function}()")
        return Rewrite()

    def _rewrite_heir(self, file: PythonFile) -> Rewrite:
        """Accept a file without the function where it takes its trainer from transformers."""
        origins = [imported.origin for imported in imported_names(file) if imported.name == "Trainer"]
        if not any(origin.startswith("transformers.") for origin in origins):
            raise Refusal(
                f"a function {self.function}()", "no such function", hint="see how this trainer enters autocast"
            )
        return Rewrite(notices=(Notice("the trainer inherits its autocast from transformers, which has the CPU"),))
