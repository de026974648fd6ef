"""Groups: many of them, of any ranks, in any order, made and freed while others are at work."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from itertools import combinations
from typing import cast

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import Cases, job


def total_of(group: dist.ProcessGroup | None, value: float) -> float:
    tensor = torch.tensor([value])
    dist.all_reduce(tensor, group=group)
    return float(tensor)


def make(ranks: list[int] | None = None) -> dist.ProcessGroup:
    """For a rank outside it is no group at all, though torch.distributed takes it for one."""
    return cast("dist.ProcessGroup", dist.new_group(ranks))


def check_subsets(cases: Cases) -> None:
    """Every subset of the ranks. Those outside go on at once."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for size in range(1, ranks + 1):
        for members in combinations(range(ranks), size):
            group = make(list(members))
            if rank in members:
                cases.true(f"sum of {members}", total_of(group, 2**rank) == sum(2**member for member in members))
                cases.true(f"rank within {members}", dist.get_rank(group) == members.index(rank))
                dist.barrier(group)
                dist.destroy_process_group(group)


def check_order(cases: Cases) -> None:
    """Ranks given in another order are sorted, as with every backend."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    group = make(list(reversed(range(ranks))))
    lists = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks)]
    dist.all_gather(lists, torch.tensor([rank]), group=group)
    cases.true("order within a group", [int(one) for one in lists] == list(range(ranks)), lists)
    tensor = torch.tensor([rank])
    dist.broadcast(tensor, ranks - 1, group=group)
    cases.true("root by its global rank", int(tensor) == ranks - 1, tensor)
    tensor = torch.tensor([rank])
    dist.broadcast(tensor, group=group, group_src=1)
    cases.true("root by its rank in the group", int(tensor) == 1, tensor)


def check_many(cases: Cases) -> None:
    """More than an MPI has communicators, were they not freed: one destroyed, one dropped, one kept alive."""
    groups = [make() for _ in range(50)]
    for i, group in enumerate(groups):
        cases.true(f"one of many groups, {i}", total_of(group, 1) == dist.get_world_size())
    for group in groups:
        dist.destroy_process_group(group)
    for i in range(200):
        group = make()
        if i % 20 == 0:
            cases.true(f"one after the other, {i}", total_of(group, i) == i * dist.get_world_size())
        dist.destroy_process_group(group)
    del groups, group
    gc.collect()


def check_busy(cases: Cases) -> None:
    """A group is made, used and destroyed while collectives and messages of others are under way."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    other = make()
    tensors = [torch.full((200_000,), float(i)) for i in range(6)]
    works = [dist.all_reduce(tensor, group=(None, other)[i % 2], async_op=True) for i, tensor in enumerate(tensors)]
    message = torch.zeros(500_000)
    if rank == 0:
        works.append(dist.irecv(message, 1))
    group = make([0, 1])
    if rank == 1:
        works.append(dist.isend(torch.ones(500_000), 0))
    if rank < 2:
        cases.true("in a group that was made meanwhile", total_of(group, 1) == 2)
    for work in works:
        assert work is not None
        work.wait()
    for i, tensor in enumerate(tensors):
        cases.same(f"under way meanwhile, {i}", tensor, torch.full_like(tensor, float(i * ranks)))
    cases.true("message meanwhile", rank > 0 or float(message.sum()) == 500_000)
    if rank < 2:
        dist.destroy_process_group(group)
    dist.destroy_process_group(other)


def check_destroyed(cases: Cases) -> None:
    group = make()
    work = dist.all_reduce(torch.ones(100_000), group=group, async_op=True)
    dist.destroy_process_group(group)
    assert work is not None
    cases.true("work of a destroyed group", work.wait() is True)
    with cases.refused("use of a destroyed group", by=ValueError):
        total_of(group, 1)


def run_threads(work: Callable[[int], None], number: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    threads = [threading.Thread(target=work, args=[i]) for i in range(number)]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join()


def check_turns(cases: Cases) -> None:
    """Threads share a group by turns."""
    turn, sums = threading.Semaphore(1), []

    def use(_number: int) -> None:
        for _ in range(50):
            with turn:
                sums.append(total_of(None, 1))

    run_threads(use, 3)
    cases.true("threads by turns", sums == [dist.get_world_size()] * 150, sums)


def check_threads(cases: Cases) -> None:
    """Threads wait side by side, for messages and for a collective."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    results: dict[int, float] = {}
    totals = []

    def talk(tag: int) -> None:
        message = torch.zeros(1)
        for i in range(50):
            if rank == 0:
                dist.send(torch.tensor([float(i)]), 1, tag=tag)
                dist.recv(message, 1, tag=tag)
            elif rank == 1:
                dist.recv(message, 0, tag=tag)
                dist.send(message + tag, 0, tag=tag)
        results[tag] = float(message)

    run_threads(talk, 4, lambda: totals.append(total_of(None, 1)))
    cases.true("all_reduce beside threads with messages", totals == [ranks], totals)
    expected = {tag: 49.0 + tag if rank == 0 else 49.0 if rank == 1 else 0.0 for tag in range(4)}
    cases.true("threads with messages", results == expected, results)


def main() -> None:
    with job("groups") as cases:
        check_subsets(cases)
        check_order(cases)
        check_many(cases)
        check_busy(cases)
        check_destroyed(cases)
        check_turns(cases)
        check_threads(cases)


if __name__ == "__main__":
    main()
