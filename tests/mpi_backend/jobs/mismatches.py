"""The ranks call different things: all of them learn what each called, and the group goes on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import Cases, default_group, job


def ones(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(size, dtype=dtype)


def disagreements(rank: int, ranks: int) -> dict[str, tuple[Callable[[], object], tuple[str, ...]]]:
    """What the last rank calls otherwise than the others, and what the message says of it."""
    odd = rank == ranks - 1
    group, sizes = default_group(), [3, 5] if odd else [3, 4]
    chosen = torch.float64 if odd else torch.float32
    op = dist.ReduceOp.MAX if odd else dist.ReduceOp.SUM
    root = 1 if odd else 0
    rows = ones(8 * ranks).chunk(ranks)
    return {
        "size": (lambda: dist.all_reduce(ones(4 + odd)), ("4 elements", "5 elements")),
        "large size": (lambda: dist.all_reduce(ones(4_000_000 - odd)), ("4000000 elements", "3999999 elements")),
        "empty": (lambda: dist.all_reduce(ones(0 if odd else 4)), ("0 elements", "4 elements")),
        "dtype": (lambda: dist.all_reduce(ones(4, chosen)), ("Float", "Double")),
        "dtype of the same width": (
            lambda: dist.broadcast(ones(4, torch.int32 if odd else torch.float32), 0),
            ("Int",),
        ),
        "operation": (lambda: dist.all_reduce(ones(4), op=op), ("SUM", "MAX")),
        "root of broadcast": (lambda: dist.broadcast(ones(4), root), ("root 0", "root 1")),
        "root of reduce": (lambda: dist.reduce(ones(4), root), ("root 0", "root 1")),
        "root of gather": (
            lambda: dist.gather(ones(8), list(rows) if rank == root else None, root),
            ("root 0", "root 1"),
        ),
        "root of scatter": (
            lambda: dist.scatter(ones(8), list(rows) if rank == root else None, root),
            ("root 0", "root 1"),
        ),
        "collective": (
            lambda: dist.broadcast(ones(4), 0) if odd else dist.all_reduce(ones(4)),
            ("broadcast", "all_reduce"),
        ),
        "barrier": (lambda: dist.barrier() if odd else dist.all_reduce(ones(4)), ("barrier", "all_reduce")),
        "one of several sizes": (
            lambda: group.allreduce_coalesced([ones(size) for size in sizes]).wait(),
            ("7 elements", "8 elements"),
        ),
        "the sizes, not their sum": (
            lambda: group.allreduce_coalesced([ones(3 - odd), ones(3 + odd)]).wait(),
            ("all_reduce_coalesced",),
        ),
        "number of tensors": (
            lambda: group.allreduce_coalesced([ones(4)] if odd else [ones(2), ones(2)]).wait(),
            ("1 x", "2 x"),
        ),
        "all_gather": (lambda: dist.all_gather([ones(4 + odd)] * ranks, ones(4 + odd)), ("4 elements", "5 elements")),
        "reduce_scatter": (
            lambda: dist.reduce_scatter(ones(4 + odd), [ones(4 + odd)] * ranks),
            ("4 elements", "5 elements"),
        ),
        "all_to_all, dtype": (
            lambda: dist.all_to_all_single(ones(4 * ranks, chosen), ones(4 * ranks, chosen)),
            ("Float", "Double"),
        ),
    }


def check_splits(cases: Cases) -> None:
    """In all_to_all, each pair of ranks must agree on what goes from the one to the other."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for unit in (1, 200_000):
        received = [2 * unit] * ranks
        sent = [2 * unit] * ranks
        for peer in (0, ranks - 1):
            if rank == ranks - 1:
                received[peer], sent[peer] = unit, 3 * unit
            output, given = ones(sum(received)), ones(sum(sent))
            with cases.refused(f"splits of {unit}, peer {peer}", "bytes"):
                dist.all_to_all_single(output, given, received, sent)
            with cases.refused(f"list of {unit}, peer {peer}", "bytes"):
                dist.all_to_all(list(torch.split(output, received)), list(torch.split(given, sent)))


def check_sparse(cases: Cases) -> None:
    """As many elements, of the same shape when dense or not, but other blocks of them."""
    odd = dist.get_rank() == dist.get_world_size() - 1
    for name, usual, other in (
        ("shapes", torch.ones(4, 3).to_sparse(1), torch.ones(3, 4).to_sparse(1)),
        ("dimensions", torch.ones(4, 3).to_sparse(1), torch.ones(4, 3).to_sparse(2)),
    ):
        with cases.refused(f"sparse {name}", "sparse_all_reduce"):
            dist.all_reduce(other if odd else usual)


def check_alive(cases: Cases, name: str) -> None:
    total = ones(3)
    dist.all_reduce(total)
    cases.same(f"the group after {name}", total, torch.full((3,), float(dist.get_world_size())))


def main() -> None:
    with job("mismatches") as cases:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for name, (call, parts) in disagreements(rank, ranks).items():
            with cases.refused(name, *parts, *(f"rank {other}: " for other in range(ranks))):
                call()
            check_alive(cases, name)
        check_splits(cases)
        check_alive(cases, "splits")
        check_sparse(cases)
        check_alive(cases, "sparse tensors")
        with cases.refused("a negative split", "negative"):
            dist.all_to_all_single(ones(4), ones(4), [-1, 5] + [0] * (ranks - 2), [-1, 5] + [0] * (ranks - 2))


if __name__ == "__main__":
    main()
