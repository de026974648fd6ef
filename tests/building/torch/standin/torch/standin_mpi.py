"""Gives the real PyTorch the MPI backend of this build, if it has one."""

from __future__ import annotations

import atexit
import ctypes
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.distributed import distributed_c10d

_API: Any = distributed_c10d
_CORE: Any = torch._C._distributed_c10d
_LIBRARY = ctypes.CDLL(str(Path(__file__).with_name("lib") / "libtorch_cpu.so"))
# The numbers that the library knows them by.
_DTYPES = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.bool: 11,
    torch.bfloat16: 15,
}


def register() -> None:
    """Put our class where PyTorch's own is in a build with MPI."""
    if not hasattr(_LIBRARY, "mpi_init"):
        return
    for module in (_CORE, _API, torch.distributed):
        vars(module)["ProcessGroupMPI"] = ProcessGroupMPI
    _API._MPI_AVAILABLE = True


def _call(name: str, *arguments: Any) -> None:
    function = getattr(_LIBRARY, name)
    function.restype = ctypes.c_char_p
    if error := function(*arguments):
        raise RuntimeError(error.decode())


def _ask(name: str) -> int:
    answer = ctypes.c_int()
    _call(name, ctypes.byref(answer))
    return answer.value


def _done(result: Any) -> Any:
    """The work that is over already."""
    future: torch.futures.Future[Any] = torch.futures.Future()
    future.set_result(result)
    return _CORE._create_work_from_future(future)


def _data(tensor: torch.Tensor) -> ctypes.c_void_p:
    if not tensor.is_contiguous():
        raise ValueError("a tensor for MPI has to be contiguous")
    return ctypes.c_void_p(tensor.data_ptr())


def _size(tensor: torch.Tensor) -> tuple[ctypes.c_int64, int]:
    return ctypes.c_int64(tensor.numel()), _DTYPES[tensor.dtype]


class ProcessGroupMPI(_CORE.ProcessGroup):  # type: ignore[misc]
    """The group of all ranks; there are no others."""

    @staticmethod
    def create(ranks: list[int]) -> ProcessGroupMPI:
        if ranks:
            raise NotImplementedError("the stand-in has no group of some ranks")
        _call("mpi_init")
        atexit.register(_call, "mpi_finalize")
        return ProcessGroupMPI(_ask("mpi_rank"), _ask("mpi_size"))

    def getBackendName(self) -> str:  # noqa: N802
        return "mpi"

    def allreduce(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        for tensor in tensors:
            _call("mpi_all_reduce", _data(tensor), *_size(tensor), int(opts.reduceOp.op))
        return _done(tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        for tensor in tensors:
            _call("mpi_broadcast", _data(tensor), *_size(tensor), ctypes.c_int64(opts.rootRank))
        return _done(tensors)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any) -> Any:
        del opts
        for output, tensor in zip(outputs, inputs, strict=True):
            gathered = torch.empty(len(output), *tensor.shape, dtype=tensor.dtype)
            _call("mpi_all_gather", _data(gathered), _data(tensor), *_size(tensor))
            for part, received in zip(output, gathered, strict=True):
                part.copy_(received)
        return _done(outputs)

    def barrier(self, opts: Any) -> Any:
        del opts
        _call("mpi_barrier")
        return _done([])
