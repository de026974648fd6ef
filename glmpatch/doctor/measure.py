"""Run in a process of its own: imports PyTorch, says what it is, and times bf16 against fp32. Imports nothing of ours.

Every answer is a line of JSON behind a mark, printed as soon as it is known: what comes later may crash. Between them
are the lines of oneDNN's own report.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import sys
import time
from typing import Any

MARK = "glmpatch-doctor:"
# A quarter of a layer of ChatGLM-6B's attention, and the tokens of a rank in one pass of upstream's train.sh. With
# fewer tokens, what counts is reading the weights, which is faster in bf16 even where it is emulated.
_WIDTH = 2048
_TOKENS = 128
_SECONDS = 0.3
# The first time, kernels are made and threads are started.
_LEAST, _MOST = 3, 20
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def main(cpus: set[int]) -> None:
    """Stay on these CPUs, as far as they are ours, and tell all there is to tell."""
    if ours := cpus & os.sched_getaffinity(0):
        os.sched_setaffinity(0, ours)
    torch = importlib.import_module("torch")
    _tell(**_describe(torch))
    _tell(**_time_dtypes(torch))
    _tell(**_backend_library())


def _tell(**facts: object) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(facts)}\n")
    sys.stdout.flush()


def _describe(torch: Any) -> dict[str, object]:
    distributed = importlib.import_module("torch.distributed")
    if not distributed.is_available():
        return {"version": torch.__version__, "distributed": False, "mpi": False, "own": False}
    cls = getattr(importlib.import_module("torch._C._distributed_c10d"), "ProcessGroupMPI", None)
    own = cls is not None and not cls.__module__.startswith("glmpatch_mpi")
    library = _loaded_library() if own else ""
    mpi = distributed.is_mpi_available()
    return {"version": torch.__version__, "distributed": True, "mpi": mpi, "own": own, "library": library}


def _loaded_library() -> str:
    """What the MPI that came with PyTorch says about itself."""
    text, length = ctypes.create_string_buffer(65536), ctypes.c_int()
    try:
        ctypes.CDLL(None).MPI_Get_library_version(text, ctypes.byref(length))
    except AttributeError:
        return ""
    return " ".join(text.value.decode(errors="replace").split())


def _time_dtypes(torch: Any) -> dict[str, object]:
    """The seconds that a quarter of a layer takes with each dtype. In turns, so that what else runs here slows both."""
    linear = torch.nn.functional.linear
    shapes = (_TOKENS, _WIDTH), (_WIDTH, _WIDTH)
    inputs = {
        name: [torch.ones(*shape, dtype=getattr(torch, dtype)) for shape in shapes] for name, dtype in _DTYPES.items()
    }
    times: dict[str, list[float]] = {name: [] for name in _DTYPES}
    begin = time.perf_counter()
    for at in range(_MOST):
        if at >= _LEAST and time.perf_counter() - begin > _SECONDS:
            break
        for name, (batch, layer) in inputs.items():
            start = time.perf_counter()
            linear(batch, layer)
            times[name].append(time.perf_counter() - start)
    return {**{name: min(each) for name, each in times.items()}, "threads": torch.get_num_threads()}


def _backend_library() -> dict[str, object]:
    """What the MPI of our backend says about itself, or why the backend does not load."""
    if importlib.util.find_spec("glmpatch_mpi") is None:
        return {}
    try:
        library = importlib.import_module("glmpatch_mpi._C").library_version()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return {"load_error": f"{error}"}
    return {"library": " ".join(library.split())}


if __name__ == "__main__":
    main({int(cpu) for cpu in sys.argv[1:]})
