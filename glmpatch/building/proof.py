"""Run by `mpirun` with a few ranks: reduces, takes a step of DDP, and sees that the numbers are right.

The first rank prints one line of JSON behind `MARK`. Whatever is wrong is an exception, which ends all ranks. A copy
of this file runs beside the backend that is not installed yet: it imports nothing of ours.

    proof.py [--torch VERSION] [--ranks NUMBER] [--mpi-root FOLDER] [--identity TEXT]

This very PyTorch, so many ranks, and no MPI but the one in FOLDER whose `MPI_Get_library_version` begins with TEXT.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

MARK = "glmpatch-proof:"
_SECONDS = 60


def main() -> None:
    """Prove the backend."""
    import torch  # noqa: PLC0415 - the parent imports MARK and not torch
    import torch.distributed as dist  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", default=torch.__version__)
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--mpi-root", default="/")
    parser.add_argument("--identity", default="")
    expected = parser.parse_args()
    if torch.__version__ != expected.torch:
        raise AssertionError(f"this is torch {torch.__version__} in {torch.__path__[0]}, not {expected.torch}")
    dist.init_process_group("mpi", timeout=timedelta(seconds=_SECONDS))
    # Those that another MPI's mpirun starts are each alone.
    if expected.ranks not in {None, dist.get_world_size()}:
        raise AssertionError(f"expected {expected.ranks} ranks, and there are {dist.get_world_size()}")
    for library in _only_mpi_in(expected.mpi_root):
        _is_of(library, expected.identity)
    dtypes = (torch.float32, torch.bfloat16)
    for dtype in dtypes:
        _all_reduce(torch, dist, dtype)
    _ddp_step(torch, dist)
    if dist.get_rank() == 0:
        facts = {
            "ranks": dist.get_world_size(),
            "dtypes": [str(dtype).removeprefix("torch.") for dtype in dtypes],
        }
        print(MARK + json.dumps(facts), flush=True)  # noqa: T201 - for the parent
    dist.destroy_process_group()


def _only_mpi_in(root: str) -> set[str]:
    """The libraries of MPI in this process. See that each is in that folder, and that there is one."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    mapped = set(re.findall(r"(/\S.*/libmpi(?:ch)?[-.].*)$", maps, re.MULTILINE))
    inside = Path(root).resolve()
    strangers = [path for path in mapped if inside not in Path(path).resolve().parents]
    if strangers or not mapped:
        raise AssertionError(f"expected the MPI in {root} in this process, found {strangers or 'none'}")
    return mapped


def _is_of(library: str, identity: str) -> None:
    """See that a library of MPI is what it should be: a folder like /usr can hold several."""
    text, length = ctypes.create_string_buffer(65536), ctypes.c_int()
    ctypes.CDLL(library).MPI_Get_library_version(text, ctypes.byref(length))
    told = " ".join(text.value.decode(errors="replace").split())
    if not told.startswith(identity):
        raise AssertionError(f"expected {identity}, and {library} is {told}")


def _all_reduce(torch: Any, dist: Any, dtype: Any) -> None:
    """Sum whole numbers, small enough for bf16 to be exact, of odd lengths short and long."""
    ranks = dist.get_world_size()
    for length in (1, 1001, 1_000_001):
        numbers = torch.arange(length) % 32
        tensor = (numbers + dist.get_rank()).to(dtype)
        dist.all_reduce(tensor)
        if not torch.equal(tensor, (ranks * numbers + ranks * (ranks - 1) // 2).to(dtype)):
            raise AssertionError(f"all_reduce of {length} numbers of {dtype} gave wrong sums")


def _ddp_step(torch: Any, dist: Any) -> None:
    """Take one step on other data on each rank: the gradients must be the mean of what each rank has alone."""
    torch.manual_seed(dist.get_rank())
    data = torch.randn(16, 32)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    alone = torch.autograd.grad(model(data).square().mean(), list(model.parameters()))
    parallel(data).square().mean().backward()
    for parameter, local in zip(model.parameters(), alone, strict=True):
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local)
        torch.testing.assert_close(parameter.grad, torch.stack(gathered).mean(0))
        dist.all_gather(gathered, parameter.grad)
        if not all(torch.equal(gradient, parameter.grad) for gradient in gathered):
            raise AssertionError("the ranks have different gradients after a step of DDP")
    torch.optim.SGD(model.parameters(), lr=0.1).step()


if __name__ == "__main__":
    main()
