"""Bad calls raise the same as with gloo; where they don't, a table says why.

`GLOO_FILE` in the environment is a path for gloo to meet at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _make_nccl_premul_sum

from tests.mpi_backend.jobs.support import Cases

Call = Callable[[dist.ProcessGroup], object]
FINE = "no exception"
# What gloo raises, what the mpi backend raises, and why it is right to differ.
DIFFERENT = {
    "all_reduce of two tensors": (FINE, "RuntimeError", "one tensor a process, as the other collectives have it"),
    "all_reduce of uint16": ("RuntimeError", FINE, "gloo has no such type"),
    "all_reduce PREMUL_SUM": ("RuntimeError", FINE, "gloo has no such operation"),
    "all_to_all_single of transposed tensors": ("ValueError", FINE, "they are copied, as in the other collectives"),
    "all_to_all_single of an odd size": (FINE, "RuntimeError", "gloo drops the rows that are left over"),
}


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(*shape, dtype=dtype)


def with_gaps() -> torch.Tensor:
    return ones(4, 4).t()[1:3, ::2]


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (4,), check_invariants=True)


def reductions() -> Mapping[str, Call]:
    op = dist.ReduceOp

    def all_reduce(tensor: torch.Tensor, reduction: object = op.SUM) -> Call:
        return lambda group: dist.all_reduce(tensor, op=reduction, group=group)

    return {
        "all_reduce with gaps": all_reduce(with_gaps()),
        "all_reduce of a transposed tensor": all_reduce(ones(4, 3).t()),
        "all_reduce of a sparse tensor": all_reduce(sparse()),
        "all_reduce MAX of a sparse tensor": all_reduce(sparse(), op.MAX),
        "all_reduce of a meta tensor": all_reduce(torch.empty(3, device="meta")),
        "all_reduce of nothing": all_reduce(ones(0)),
        "all_reduce of an empty list": lambda group: group.allreduce([]).wait(),
        "all_reduce of two tensors": lambda group: group.allreduce([ones(2), ones(2)]).wait(),
        "all_reduce of a list": lambda group: dist.all_reduce([ones(2)], group=group),
        "all_reduce of bool": all_reduce(ones(2, dtype=torch.bool)),
        "all_reduce of float8": all_reduce(ones(2).to(torch.float8_e4m3fn)),
        "all_reduce of uint16": all_reduce(ones(2).to(torch.uint16)),
        "all_reduce BAND of floats": all_reduce(ones(2), op.BAND),
        "all_reduce AVG": all_reduce(ones(2), op.AVG),
        "all_reduce AVG of integers": all_reduce(ones(2, dtype=torch.int32), op.AVG),
        "all_reduce PREMUL_SUM": all_reduce(ones(2), _make_nccl_premul_sum(2.0)),
        "all_reduce MAX of complex numbers": all_reduce(ones(2, dtype=torch.complex64), op.MAX),
        "all_reduce_coalesced of several dtypes": lambda group: group.allreduce_coalesced(
            [ones(2), ones(2, dtype=torch.int32)]
        ).wait(),
        "all_reduce_coalesced of sparse tensors": lambda group: group.allreduce_coalesced([sparse()]).wait(),
        "all_reduce_coalesced with gaps": lambda group: group.allreduce_coalesced([with_gaps()]).wait(),
        "reduce with gaps": lambda group: dist.reduce(with_gaps(), 0, group=group),
        "reduce of a sparse tensor": lambda group: dist.reduce(sparse(), 0, group=group),
        "reduce to no rank": lambda group: dist.reduce(ones(2), 7, group=group),
        "reduce to no rank of the group": lambda group: group.reduce(ones(2), 7).wait(),
        "reduce_scatter, short list": lambda group: dist.reduce_scatter(ones(2), [ones(2)], group=group),
        "reduce_scatter, wrong shape": lambda group: dist.reduce_scatter(ones(2), [ones(3)] * 2, group=group),
        "reduce_scatter, wrong dtype": lambda group: dist.reduce_scatter(
            ones(2), [ones(2, dtype=torch.int32)] * 2, group=group
        ),
        "reduce_scatter with gaps": lambda group: dist.reduce_scatter(with_gaps(), [ones(2, 2)] * 2, group=group),
        "reduce_scatter_tensor, wrong size": lambda group: dist.reduce_scatter_tensor(ones(2), ones(3), group=group),
        "reduce_scatter_tensor, wrong dtype": lambda group: dist.reduce_scatter_tensor(
            ones(2), ones(4, dtype=torch.int32), group=group
        ),
        "reduce_scatter_tensor with gaps": lambda group: dist.reduce_scatter_tensor(
            with_gaps(), ones(4, 2), group=group
        ),
        "reduce_scatter_tensor of a sparse tensor": lambda group: dist.reduce_scatter_tensor(
            ones(2), sparse(), group=group
        ),
    }


def gathers() -> Mapping[str, Call]:
    return {
        "broadcast with gaps": lambda group: dist.broadcast(with_gaps(), 0, group=group),
        "broadcast of a sparse tensor": lambda group: dist.broadcast(sparse(), 0, group=group),
        "broadcast of a meta tensor": lambda group: dist.broadcast(torch.empty(3, device="meta"), 0, group=group),
        "broadcast from no rank": lambda group: dist.broadcast(ones(2), 7, group=group),
        "broadcast from no rank of the group": lambda group: group.broadcast(ones(2), 7).wait(),
        "all_gather, short list": lambda group: dist.all_gather([ones(2)], ones(2), group=group),
        "all_gather, long list": lambda group: dist.all_gather([ones(2)] * 3, ones(2), group=group),
        "all_gather, empty list": lambda group: dist.all_gather([], ones(2), group=group),
        "all_gather, wrong shape": lambda group: dist.all_gather([ones(3)] * 2, ones(2), group=group),
        "all_gather, wrong dtype": lambda group: dist.all_gather(
            [ones(2, dtype=torch.int32)] * 2, ones(2), group=group
        ),
        "all_gather, same number of elements": lambda group: dist.all_gather([ones(4, 1)] * 2, ones(2, 2), group=group),
        "all_gather, input with gaps": lambda group: dist.all_gather([ones(2, 2)] * 2, with_gaps(), group=group),
        "all_gather, outputs with gaps": lambda group: dist.all_gather(
            [with_gaps(), with_gaps()], ones(2, 2), group=group
        ),
        "all_gather of sparse tensors": lambda group: dist.all_gather([sparse(), sparse()], sparse(), group=group),
        "all_gather of two tensors": lambda group: group.allgather([[ones(2)] * 2] * 2, [ones(2)] * 2).wait(),
        "all_gather_into_tensor, wrong size": lambda group: dist.all_gather_into_tensor(ones(3), ones(2), group=group),
        "all_gather_into_tensor, wrong dtype": lambda group: dist.all_gather_into_tensor(
            ones(4, dtype=torch.int32), ones(2), group=group
        ),
        "all_gather_into_tensor with gaps": lambda group: dist.all_gather_into_tensor(
            ones(4, 4).t(), with_gaps().repeat(1, 2)[:, ::1], group=group
        ),
        "allgather_coalesced, short list": lambda group: group.allgather_coalesced([[ones(2)]], [ones(2)]).wait(),
        "gather, short list": lambda group: group.gather([ones(2)], [ones(2)], 0),  # type: ignore[list-item]
        "gather, list on all ranks": lambda group: dist.gather(ones(2), [ones(2)] * 2, 1 - group.rank(), group=group),
        "gather, no list on the root": lambda group: dist.gather(ones(2), None, group.rank(), group=group),
        "gather to no rank": lambda group: dist.gather(ones(2), None, 7, group=group),
        "gather, list of one": lambda group: dist.gather(ones(2), [ones(2)], group.rank(), group=group),
        "gather, wrong shape": lambda group: dist.gather(ones(2), [ones(3)] * 2, group.rank(), group=group),
        "gather, wrong dtype": lambda group: dist.gather(
            ones(2), [ones(2, dtype=torch.int32)] * 2, group.rank(), group=group
        ),
        "scatter, list of one": lambda group: dist.scatter(ones(2), [ones(2)], group.rank(), group=group),
        "scatter, wrong shape": lambda group: dist.scatter(ones(2), [ones(3)] * 2, group.rank(), group=group),
        "scatter, wrong dtype": lambda group: dist.scatter(
            ones(2), [ones(2, dtype=torch.int32)] * 2, group.rank(), group=group
        ),
        "scatter, no list on the root": lambda group: dist.scatter(ones(2), None, group.rank(), group=group),
        "scatter, list on all ranks": lambda group: dist.scatter(ones(2), [ones(2)] * 2, 1 - group.rank(), group=group),
    }


def exchanges() -> Mapping[str, Call]:
    def other(group: dist.ProcessGroup) -> int:
        return 1 - group.rank()

    return {
        "all_to_all, short list": lambda group: dist.all_to_all([ones(2)], [ones(2)] * 2, group=group),
        "all_to_all, wrong dtype": lambda group: dist.all_to_all(
            [ones(2)] * 2, [ones(2, dtype=torch.int32)] * 2, group=group
        ),
        "all_to_all_single, splits too large": lambda group: dist.all_to_all_single(
            ones(4), ones(4), [3, 3], [3, 3], group=group
        ),
        "all_to_all_single, a single split": lambda group: dist.all_to_all_single(
            ones(4), ones(4), [4], [4], group=group
        ),
        "all_to_all_single of an odd size": lambda group: dist.all_to_all_single(ones(3), ones(3), group=group),
        "all_to_all_single, wrong dtype": lambda group: dist.all_to_all_single(
            ones(4), ones(4, dtype=torch.int32), group=group
        ),
        "all_to_all_single of transposed tensors": lambda group: dist.all_to_all_single(
            torch.empty(4, 2), ones(2, 4).t(), group=group
        ),
        "send to oneself": lambda group: dist.send(ones(2), group.rank(), group=group),
        "send with gaps": lambda group: dist.send(with_gaps(), other(group), group=group),
        "send of a sparse tensor": lambda group: dist.send(sparse(), other(group), group=group),
        "send of two tensors": lambda group: group.send([ones(1), ones(1)], other(group), 0).wait(),
        "recv with gaps": lambda group: dist.recv(with_gaps(), other(group), group=group),
        "recv of a sparse tensor": lambda group: dist.recv(sparse(), other(group), group=group),
        "recv of a meta tensor": lambda group: dist.recv(torch.empty(3, device="meta"), other(group), group=group),
        "send of an integer": lambda group: dist.send(3, other(group), group=group),  # type: ignore[arg-type]
    }


# gloo fails otherwise: it waits for a rank that is not there until it times out, or the process dies.
OURS: Mapping[str, Call] = {
    "send to no rank": lambda group: group.send([ones(1)], 9, 0).wait(),
    "send to a negative rank": lambda group: group.send([ones(1)], -1, 0).wait(),
    "recv from no rank": lambda group: group.recv([ones(1)], 9, 0).wait(),
    "send with a negative tag": lambda group: group.send([ones(1)], 1, -1).wait(),
}


def outcomes(calls: Mapping[str, Call]) -> dict[str, str]:
    """The name of what each raises. Each has a group of its own, so that what a call leaves behind does no harm."""
    found = {}
    for name, call in calls.items():
        group = dist.new_group()
        assert isinstance(group, dist.ProcessGroup)
        try:
            call(group)
            found[name] = FINE
        except Exception as error:  # noqa: BLE001 - which it is, is what is asked
            found[name] = type(error).__name__
    return found


def main() -> None:
    calls = {**reductions(), **gathers(), **exchanges()}
    rank = int(os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"])
    timeout = timedelta(seconds=20)
    dist.init_process_group("gloo", f"file://{os.environ['GLOO_FILE']}", timeout=timeout, world_size=2, rank=rank)
    gloo = outcomes(calls)
    dist.barrier()
    dist.destroy_process_group()

    dist.init_process_group("mpi", timeout=timeout)
    ours = outcomes(calls)
    cases = Cases()
    for name in calls:
        expected = DIFFERENT.get(name, (gloo[name], gloo[name]))[:2]
        cases.true(name, (gloo[name], ours[name]) == expected, f"gloo: {gloo[name]}, mpi: {ours[name]}")
    for name, outcome in outcomes(OURS).items():
        cases.true(name, outcome == "RuntimeError", outcome)
    total = ones(1)
    dist.all_reduce(total)
    cases.true("the group afterwards", int(total) == 2, total)
    dist.destroy_process_group()
    cases.report("exceptions")


if __name__ == "__main__":
    main()
