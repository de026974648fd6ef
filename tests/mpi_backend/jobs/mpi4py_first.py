"""A job whose MPI is mpi4py's: it starts MPI and ends it, and both talk in between."""

from __future__ import annotations

import sys

import mpi4py
import torch
import torch.distributed as dist


def main() -> None:
    mpi4py.rc.thread_level = sys.argv[1]
    from mpi4py import MPI  # noqa: PLC0415 - this starts MPI

    dist.init_process_group("mpi")
    world = MPI.COMM_WORLD
    assert (dist.get_rank(), dist.get_world_size()) == (world.rank, world.size)
    group = dist.new_group()
    for _ in range(20):
        mine = torch.full((1000,), float(world.rank + 1))
        works = [dist.all_reduce(mine, async_op=True), dist.all_reduce(mine.clone(), group=group, async_op=True)]
        for work in works:
            assert work is not None
            work.wait()
        assert mine.sum().item() == 1000 * world.allreduce(world.rank + 1)
    if len(sys.argv) > 2:
        dist.destroy_process_group()
        assert not MPI.Is_finalized()
        assert world.allreduce(1) == world.size


if __name__ == "__main__":
    main()
