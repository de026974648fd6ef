"""Asks PyTorch what it is and how fast it is, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glmpatch.doctor import measure
from glmpatch.process import CommandFailedError, SilentError, stream

# From a cold disk, PyTorch takes its time.
_PATIENCE = 60
# Without the folder we are in, which can hold a torch that is not installed: its sources.
_RUN = """\
import runpy, sys
sys.path = [folder for folder in sys.path if folder]
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class TorchReport:
    """What PyTorch said.

    Attributes:
        error: Why it cannot be imported or does not multiply, its last line; "" if it does.
        version: `torch.__version__`.
        distributed: Whether it has `torch.distributed`.
        mpi: What `torch.distributed.is_mpi_available()` says.
        own: Whether its MPI backend is its own.
        library: What the MPI says about itself that the backend loads, with single spaces; "" if that is unknown.
        load_error: Why glmpatch's backend does not load; "" if it does, or is not there.
        fp32: The seconds that a quarter of a layer takes in fp32; 0 if that was not measured.
        bf16: The same in bf16.
        threads: With how many threads.
        kernel: What oneDNN calls the code that it ran for bf16; "" if it ran none.
    """

    error: str = ""
    version: str = ""
    distributed: bool = False
    mpi: bool = False
    own: bool = False
    library: str = ""
    load_error: str = ""
    fp32: float = 0
    bf16: float = 0
    threads: int = 0
    kernel: str = ""


def ask_torch(cpus: Sequence[int], threads: int) -> TorchReport:
    """Import PyTorch and time it, as a rank would run it.

    Args:
        cpus: Those of the rank.
        threads: Those of the rank.
    """
    if importlib.util.find_spec("torch") is None:
        return TorchReport(error="it is not installed")
    command = [sys.executable, "-c", _RUN, measure.__file__, *map(str, cpus)]
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": str(threads)}
    facts: dict[str, Any] = {}
    last = kernel = ""
    try:
        for line in stream(command, env=environment, silence=_PATIENCE):
            _, mark, answer = line.partition(measure.MARK)
            if mark:
                facts.update(json.loads(answer))
            elif "onednn_verbose" in line:
                kernel = kernel_of(line) or kernel
            elif line.strip():
                last = line.strip()
    except (CommandFailedError, SilentError) as error:
        reason = error.message if isinstance(error, SilentError) else last or f"exit code {error.returncode}"
        # What it had said before it died holds.
        facts.setdefault("load_error" if "fp32" in facts else "error", reason)
    return TorchReport(**facts, kernel=kernel)


def kernel_of(line: str) -> str:
    """The implementation, if this line of oneDNN's report is about a multiplication in bf16; else "".

    The words around it have changed over the versions; what follows `exec` has not.
    """
    words = line.split(",")
    if "exec" not in words or "bf16" not in line:
        return ""
    _, kind, implementation = (*words[words.index("exec") + 1 :], "", "", "")[:3]
    return implementation if kind in {"matmul", "inner_product"} else ""
