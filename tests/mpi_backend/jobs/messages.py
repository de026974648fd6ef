"""Messages between two ranks: tags, any source, both ways at once, in any order, of any size."""

from __future__ import annotations

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import Cases, default_group, job, random_bytes

SIZES = (0, 1, 7, 1000, 70_001, 3_000_001)


def held(rank: int, size: int) -> torch.Tensor:
    return random_bytes(torch.uint8, size, "message", rank, size)


def isend(tensor: torch.Tensor, to: int, tag: int = 0) -> dist.Work:
    work = dist.isend(tensor, to, tag=tag)
    assert work is not None
    return work


def irecv(tensor: torch.Tensor, source: int | None, tag: int = 0) -> dist.Work:
    work = dist.irecv(tensor, source, tag=tag)
    assert work is not None
    return work


def check_sizes(cases: Cases, other: int) -> None:
    """Blocking one after the other, then at once: two sends that wait for each other must not lock."""
    rank = dist.get_rank()
    for size in SIZES:
        mine = torch.zeros(size, dtype=torch.uint8)
        if rank < other:
            dist.send(held(rank, size), other)
            dist.recv(mine, other)
        else:
            dist.recv(mine, other)
            dist.send(held(rank, size), other)
        cases.same(f"send and recv of {size}", mine, held(other, size))

        mine = torch.zeros(size, dtype=torch.uint8)
        sending = isend(held(rank, size), other)
        receiving = irecv(mine, other)
        receiving.wait()
        sending.wait()
        cases.same(f"isend and irecv of {size}, crossing", mine, held(other, size))
        cases.true(f"both of {size} done", sending.is_completed() and receiving.is_completed())
        cases.true(f"source of {size}", receiving._source_rank() == other, receiving._source_rank())


def check_tags(cases: Cases, other: int) -> None:
    """Messages are told apart by tag, and come in order where the tag is the same."""
    rank = dist.get_rank()
    tags = (5, 0, 32766, 7)
    sends = [isend(held(rank, 10 + tag % 100), other, tag) for tag in tags]
    for tag in reversed(tags):
        mine = torch.zeros(10 + tag % 100, dtype=torch.uint8)
        dist.recv(mine, other, tag=tag)
        cases.same(f"tag {tag}", mine, held(other, 10 + tag % 100))
    for work in sends:
        work.wait()
    sizes = range(1, 200, 7)
    sends = [isend(held(rank, size), other, 3) for size in sizes]
    for size in sizes:
        mine = torch.zeros(size, dtype=torch.uint8)
        dist.recv(mine, other, tag=3)
        cases.same(f"in order, {size}", mine, held(other, size))
    for work in sends:
        work.wait()
    with cases.refused("a tag that is too large", "tag 32767"):
        default_group().send([torch.ones(1)], other, 32767)
    with cases.refused("a negative tag", "tag -1"):
        default_group().send([torch.ones(1)], other, -1)


def check_any_source(cases: Cases) -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        sources = set()
        for _ in range(1, ranks):
            mine = torch.zeros(1, dtype=torch.int64)
            source = dist.recv(mine, tag=9)
            sources.add(source)
            cases.true(f"any source, told {source}", source == int(mine), mine)
        cases.true("any source, all of them", sources == set(range(1, ranks)), sources)
        waiting = torch.zeros(1, dtype=torch.int64)
        receiving = irecv(waiting, None, tag=10)
        cases.true("irecv of any source waits", not receiving.is_completed())
        dist.send(torch.ones(1), 1, tag=11)
        receiving.wait()
        cases.true("irecv of any source", int(waiting) == 1, waiting)
        cases.true("irecv of any source, told", receiving._source_rank() == 1, receiving._source_rank())
    else:
        dist.send(torch.tensor([rank]), 0, tag=9)
        if rank == 1:
            dist.recv(torch.zeros(1), 0, tag=11)
            dist.send(torch.tensor([rank]), 0, tag=10)


def check_any_source_behind_another(cases: Cases) -> None:
    """A receive that waits for one rank does not hold up a later one for any rank."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank == 0 and ranks > 2:
        first, second = torch.zeros(1), torch.zeros(1)
        waiting = irecv(first, 2)
        cases.true("any source behind another", dist.recv(second) == 1 and int(second) == 1, second)
        dist.send(second, 2)
        waiting.wait()
        cases.true("what it was behind", int(first) == 2, first)
    elif rank == 1 and ranks > 2:
        dist.send(torch.ones(1), 0)
    elif rank == 2:
        dist.recv(torch.zeros(1), 0)
        dist.send(torch.full((1,), 2.0), 0)


def check_destroyed(cases: Cases) -> None:
    """A receive that no message has come for, in a group that goes, is told so; the other groups go on."""
    group = dist.new_group()
    work = dist.irecv(torch.zeros(1), (dist.get_rank() + 1) % dist.get_world_size(), group=group)
    assert work is not None
    dist.destroy_process_group(group)
    with cases.refused("irecv in a group that was destroyed", "before the group was destroyed"):
        work.wait()


def check_batch(cases: Cases) -> None:
    """A batch to and from all others at once, the own rank left out."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    others = [other for other in range(ranks) if other != rank]
    for size in (1, 500_001):
        results = {other: torch.zeros(size, dtype=torch.uint8) for other in others}
        batch = [dist.P2POp(dist.isend, held(rank, size), other) for other in others]
        batch += [dist.P2POp(dist.irecv, results[other], other) for other in others]
        for work in dist.batch_isend_irecv(batch):
            work.wait()
        for other in others:
            cases.same(f"batch of {size} from {other}", results[other], held(other, size))


def check_many(cases: Cases, other: int) -> None:
    """Hundreds under way, waited for in the opposite order, while collectives run."""
    rank = dist.get_rank()
    results = [torch.zeros(100 + i, dtype=torch.uint8) for i in range(300)]
    receiving = [irecv(result, other, i) for i, result in enumerate(results)]
    total = torch.ones(10)
    reducing = dist.all_reduce(total, async_op=True)
    sending = [isend(held(rank, 100 + i), other, i) for i in range(300)]
    assert reducing is not None
    for work in [*reversed(receiving), reducing, *sending]:
        work.wait()
    for i, result in enumerate(results):
        cases.same(f"one of many, {i}", result, held(other, 100 + i))
    cases.same("all_reduce among many", total, torch.full((10,), float(dist.get_world_size())))


def check_lengths(cases: Cases, other: int) -> None:
    """A message of another length than expected raises where it is received, and the group goes on."""
    rank = dist.get_rank()
    if rank < other:
        for length in (3, 5, 300_000):
            dist.send(torch.ones(length), other, tag=1)
    else:
        with cases.refused("a shorter message", "12 bytes", "16"):
            dist.recv(torch.zeros(4), other, tag=1)
        with cases.refused("a longer message"):
            dist.recv(torch.zeros(4), other, tag=1)
        with cases.refused("a much longer message"):
            dist.recv(torch.zeros(4), other, tag=1)
    total = torch.ones(1)
    dist.all_reduce(total)
    cases.true("the group after messages of other lengths", int(total) == dist.get_world_size(), total)


def check_group(cases: Cases) -> None:
    """Ranks within a subgroup: global ranks in torch's functions, the group's own in `group_dst`."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    members = [ranks - 1, 0]
    group = dist.new_group(members)
    if rank not in members:
        return
    other = ranks - 1 - rank
    mine = torch.zeros(3)
    work = dist.isend(torch.full((3,), float(rank)), other, group=group)
    dist.recv(mine, other, group=group)
    assert work is not None
    work.wait()
    cases.same("message in a subgroup", mine, torch.full((3,), float(other)))
    work = dist.isend(torch.full((3,), float(rank)), group=group, group_dst=dist.get_group_rank(group, other))
    source = dist.recv(mine, group=group)
    assert work is not None
    work.wait()
    cases.true("any source in a subgroup", source == other, source)


def main() -> None:
    with job("messages") as cases:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        other = rank ^ 1
        if other < ranks:
            check_sizes(cases, other)
            check_tags(cases, other)
            check_many(cases, other)
            check_lengths(cases, other)
        else:
            dist.all_reduce(torch.ones(10))
            dist.all_reduce(torch.ones(1))
        check_any_source(cases)
        check_any_source_behind_another(cases)
        check_destroyed(cases)
        check_batch(cases)
        check_group(cases)


if __name__ == "__main__":
    main()
