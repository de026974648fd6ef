"""Tensors of more than 2**31 elements, which no count of MPI's holds."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import job

SIZE = 2**31 + 4104  # elements of a byte each; eight at a time are compared sooner
ENDS = (0, 1, 2**31 - 1, 2**31, SIZE - 1)


def all_are(tensor: torch.Tensor, value: int) -> bool:
    eight = int.from_bytes(bytes([value] * 8), sys.byteorder)
    return bool((tensor.view(torch.int64) == eight).all())


def main() -> None:
    with job("large") as cases:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        tensor = torch.full((SIZE,), 1 + rank, dtype=torch.uint8)
        expected = sum(range(1, ranks + 1))
        dist.all_reduce(tensor)
        cases.true("all_reduce", all_are(tensor, expected), [int(tensor[i]) for i in ENDS])

        tensor.fill_(10 * rank + 3)
        dist.broadcast(tensor, 1)
        cases.true("broadcast", all_are(tensor, 13), [int(tensor[i]) for i in ENDS])

        for i, end in enumerate(ENDS):
            tensor[end] = 100 + i if rank == 0 else 0
        if rank == 0:
            dist.send(tensor, 1)
        elif rank == 1:
            tensor.zero_()
            dist.recv(tensor, 0)
            cases.true("recv, its ends", [int(tensor[end]) for end in ENDS] == [100, 101, 102, 103, 104])
            tensor[torch.tensor(ENDS)] = 13
            cases.true("recv", all_are(tensor, 13))


if __name__ == "__main__":
    main()
