"""What is under way: work objects, futures, callbacks, and orders that would lock a worker that blocks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import Cases, default_group, job

Futures = torch.futures.Future[list[torch.Tensor]]


def work_of(work: dist.Work | None) -> dist.Work:
    assert work is not None
    return work


def all_reduce(tensor: torch.Tensor, **options: Any) -> dist.Work:
    return work_of(dist.all_reduce(tensor, async_op=True, **options))


def full(size: int, value: float) -> torch.Tensor:
    return torch.full((size,), float(value))


def check_work(cases: Cases) -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank == 1:
        dist.recv(torch.zeros(1), 0)
    mine = full(3, rank)
    work = all_reduce(mine)
    if rank == 0:
        cases.true("not done while a rank is missing", not work.is_completed())
        with cases.refused("wait with a timeout", "mpi:all_reduce", "200 ms"):
            work.wait(timedelta(milliseconds=200))
        cases.true("still under way", not work.is_completed() and not work.get_future().done())
        dist.send(torch.zeros(1), 1)
    cases.true("wait", work.wait() is True)
    cases.true("done", work.is_completed() and work.is_success())
    cases.true("wait again", work.wait() is True)
    expected = full(3, sum(range(ranks)))
    cases.same("result", work.result()[0], expected)
    cases.true("result is the tensor", work.result()[0].data_ptr() == mine.data_ptr())
    future: Futures = work.get_future()
    cases.same("future", future.wait()[0], expected)
    cases.true("future is done", future.done())


def check_futures(cases: Cases) -> None:
    """Callbacks run once the result is there, chained or added late, and may call collectives themselves."""
    ranks = dist.get_world_size()
    future: Futures = all_reduce(full(4, 1)).get_future()
    doubled = future.then(lambda done: done.value()[0] * 2)
    again = doubled.then(lambda done: done.value() + 1)
    cases.same("then", again.wait(), full(4, 2 * ranks + 1))
    cases.same("then, added late", future.then(lambda done: done.value()[0]).wait(), full(4, ranks))

    def reduce_again(done: Futures) -> torch.Tensor:
        tensor = done.value()[0].clone()
        dist.all_reduce(tensor)
        return tensor

    for _ in range(20):
        future = all_reduce(full(4, 1)).get_future()
        cases.same("callback with a collective", future.then(reduce_again).wait(), full(4, ranks**2))

    def go_on(done: Futures) -> Futures:
        return all_reduce(done.value()[0].clone()).get_future()

    future = all_reduce(full(4, 1)).get_future()
    cases.same("callback that starts a collective", future.then(go_on).wait().wait()[0], full(4, ranks**2))

    def fail(_done: Futures) -> torch.Tensor:
        message = "from the callback"
        raise ValueError(message)

    future = all_reduce(full(4, 1)).get_future()
    with cases.refused("callback that raises", "from the callback"):
        future.then(fail).wait()
    futures: list[Futures] = [all_reduce(full(4, i)).get_future() for i in range(5)]
    collected = torch.futures.collect_all(futures).wait()
    for i, done in enumerate(collected):
        cases.same(f"collect_all {i}", done.value()[0], full(4, i * ranks))


def check_callbacks_that_wait(cases: Cases) -> None:
    """The callback of one message waits for another that arrives at the same moment."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    other = rank ^ 1
    for size in (10, 100_000):
        if other < ranks:
            first, second = full(size, -1), full(size, -1)
            sends = [work_of(dist.isend(full(size, tag), other, tag=tag)) for tag in (1, 2)]
            time.sleep(0.05)
            one, two = (work_of(dist.irecv(t, other, tag=tag)) for t, tag in ((first, 1), (second, 2)))

            def wait_for_second(_done: object, two: dist.Work = two, second: torch.Tensor = second) -> float:
                two.wait()
                return float(second.sum())

            result = one.get_future().then(wait_for_second)
            cases.true(f"callback of a message waits for another, {size}", result.wait() == 2 * size)
            cases.same(f"the message itself, {size}", first, full(size, 1))
            for work in sends:
                work.wait()
        dist.barrier()


def check_many(cases: Cases) -> None:
    ranks = dist.get_world_size()
    for order in (1, -1):
        tensors = [full(1 + 997 * i, i) for i in range(60)]
        works = [all_reduce(tensor) for tensor in tensors]
        for work in works[::order]:
            work.wait()
        for i, tensor in enumerate(tensors):
            cases.same(f"one of many, {i}", tensor, full(1 + 997 * i, i * ranks))


def check_kinds(cases: Cases) -> None:
    """All collectives at once, and the tensors that only they hold are kept until they are done."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    size = 50_000
    sent, got = full(size, rank), [full(size, -1) for _ in range(8)]
    lists = [[full(size, -1) for _ in range(ranks)] for _ in range(3)]
    root = rank == 0
    works = [
        dist.broadcast(got[0].fill_(rank), ranks - 1, async_op=True),
        dist.all_gather(lists[0], sent.clone(), async_op=True),
        dist.reduce(got[1].fill_(1), 0, async_op=True),
        dist.gather(sent.clone(), lists[1] if root else None, 0, async_op=True),
        dist.scatter(got[2], [full(size, i) for i in range(ranks)] if root else None, 0, async_op=True),
        dist.reduce_scatter(got[3], [full(size, i) for i in range(ranks)], async_op=True),
        dist.all_to_all(lists[2], [full(size, 10 * rank + i) for i in range(ranks)], async_op=True),
        dist.barrier(async_op=True),
    ]
    junk = [torch.empty(size).fill_(float("nan")) for _ in range(50)]
    for work in works:
        work_of(work).wait()
    del junk
    cases.same("broadcast", got[0], full(size, ranks - 1))
    cases.same("scatter", got[2], full(size, rank))
    cases.same("reduce_scatter", got[3], full(size, rank * ranks))
    if root:
        cases.same("reduce", got[1], full(size, ranks))
    for other in range(ranks):
        cases.same(f"all_gather {other}", lists[0][other], full(size, other))
        cases.same(f"all_to_all {other}", lists[2][other], full(size, 10 * other + rank))
        if root:
            cases.same(f"gather {other}", lists[1][other], full(size, other))


def check_orders(cases: Cases) -> None:
    """A rank waits for a message while a collective that the other has not joined is under way, and the like."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for size in (1, 300_000):
        total, message = full(size, 1), full(size, rank)
        if rank == 0:
            work = all_reduce(total)
            dist.send(message, 1)
            dist.recv(message, 1)
            work.wait()
        elif rank == 1:
            dist.recv(message, 0)
            dist.send(full(size, 1), 0)
            dist.all_reduce(total)
        else:
            dist.all_reduce(total)
        cases.same(f"all_reduce around messages, {size}", total, full(size, ranks))
        cases.same(f"messages within an all_reduce, {size}", message, full(size, rank ^ 1 if rank < 2 else rank))

        total, message = full(size, 1), full(size, -1)
        works = []
        if rank == 0:
            works = [work_of(dist.irecv(message, 1)), work_of(dist.barrier(async_op=True)), all_reduce(total)]
        elif rank == 1:
            works = [work_of(dist.barrier(async_op=True)), all_reduce(total), work_of(dist.isend(full(size, 5), 0))]
        else:
            works = [work_of(dist.barrier(async_op=True)), all_reduce(total)]
        for work in works:
            work.wait()
        cases.same(f"irecv before and isend after, {size}", message, full(size, 5 if rank == 0 else -1))
        cases.same(f"all_reduce behind a barrier, {size}", total, full(size, ranks))


def check_failure(cases: Cases) -> None:
    """The ranks disagree: the exception comes out of wait, of the future and of its callback, on all of them."""
    rank = dist.get_rank()
    work = all_reduce(full(3 + rank, 1))
    with cases.refused("wait", "rank 0", "rank 1"):
        work.wait()
    cases.true("is_success", work.is_completed() and not work.is_success())
    cases.true("exception", "rank 1" in str(work.exception()), work.exception())
    future: Futures = work.get_future()
    with cases.refused("future", "rank 0", "rank 1"):
        future.wait()
    with cases.refused("callback", "rank 0", "rank 1"):
        future.then(lambda done: done.value()).wait()
    total = full(2, 1)
    dist.all_reduce(total)
    cases.same("afterwards", total, full(2, dist.get_world_size()))


def check_profile(cases: Cases) -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    matrix, lists = torch.ones(2, 3), [torch.ones(2, 3) for _ in range(ranks)]
    large, root = torch.ones(2 * ranks, 3), rank == 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        dist.all_reduce(matrix)
        all_reduce(matrix).wait()
        default_group().allreduce_coalesced([matrix, torch.ones(5)]).wait()
        dist.broadcast(matrix, 0)
        dist.reduce(matrix, 0)
        dist.all_gather(lists, matrix)
        dist.all_gather_into_tensor(large, matrix)
        dist.gather(matrix, lists if root else None, 0)
        dist.scatter(matrix, lists if root else None, 0)
        dist.reduce_scatter(matrix, lists)
        dist.reduce_scatter_tensor(matrix, large)
        dist.all_to_all(lists, [matrix] * ranks)
        dist.all_to_all_single(large, large.clone())
        dist.barrier()
        if rank == 0:
            dist.send(matrix, 1)
        elif rank == 1:
            dist.recv(matrix, 0)
    events: dict[str, list[Sequence[object]]] = {}
    for event in profile.events():
        if event.name.startswith("mpi:"):
            events.setdefault(event.name.removeprefix("mpi:"), []).append(event.input_shapes)
    shape, whole = [2, 3], [2 * ranks, 3]
    expected = {
        "all_reduce": [[shape], [shape]],
        "all_reduce_coalesced": [[shape, [5]]],
        "broadcast": [[shape]],
        "reduce": [[shape]],
        "all_gather": [[shape]],
        "_all_gather_base": [[shape]],
        "gather": [[shape]],
        "scatter": [[shape] * ranks if root else []],  # as gloo has it
        "reduce_scatter": [[shape] * ranks],
        "_reduce_scatter_base": [[whole]],
        "all_to_all": [[shape] * ranks, [whole]],
        "barrier": [[]],
        **({"send": [[shape]]} if rank == 0 else {"recv": [[shape]]} if rank == 1 else {}),
    }
    for name in expected.keys() | events.keys():
        cases.true(f"profile of {name}", events.get(name) == expected.get(name), events.get(name))


def main() -> None:
    with job("asynchrony") as cases:
        check_work(cases)
        check_futures(cases)
        check_many(cases)
        check_kinds(cases)
        check_orders(cases)
        check_failure(cases)
        check_profile(cases)
        check_callbacks_that_wait(cases)


if __name__ == "__main__":
    main()
