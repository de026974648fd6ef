"""Every collective that moves tensors, of every dtype that torch has, in any layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _coalescing_manager, _CoalescingManager

from tests.mpi_backend.jobs.support import BYTES_OF_CHUNK, Cases, all_dtypes, default_group, job, random_bytes


def check_all(cases: Cases, dtype: torch.dtype, size: int) -> None:
    """Flat tensors of one size on all ranks, against what the ranks are known to hold."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    name = f"{size} {dtype}"
    held = [random_bytes(dtype, size, other, dtype, size) for other in range(ranks)]
    rows = [random_bytes(dtype, size * ranks, "rows", other, dtype, size) for other in range(ranks)]
    parts = [list(row.view(ranks, size)) for row in rows]
    root = (size + 1) % ranks

    def blank(factor: int = 1) -> torch.Tensor:
        return torch.zeros(held[0].nbytes * factor, dtype=torch.uint8).view(dtype)

    def blanks() -> list[torch.Tensor]:
        return [blank() for _ in range(ranks)]

    def expect(what: str, found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            cases.same_bytes(f"{what} {i} of {name}", one, other)

    mine = held[rank] if rank == root else blank()
    dist.broadcast(mine, root)
    expect("broadcast", [mine], [held[root]])

    lists = blanks()
    dist.all_gather(lists, held[rank])
    expect("all_gather", lists, held)

    large = blank(ranks)
    dist.all_gather_into_tensor(large, held[rank])
    expect("all_gather_into_tensor", list(large.view(ranks, size)), held)

    lists = blanks()
    dist.gather(held[rank], lists if rank == root else None, root)
    expect("gather", lists if rank == root else [], held if rank == root else [])

    mine = blank()
    dist.scatter(mine, parts[root] if rank == root else None, root)
    expect("scatter", [mine], [parts[root][rank]])

    lists = blanks()
    dist.all_to_all(lists, parts[rank])
    expect("all_to_all", lists, [part[rank] for part in parts])

    large = blank(ranks)
    dist.all_to_all_single(large, rows[rank])
    expect("all_to_all_single", list(large.view(ranks, size)), [part[rank] for part in parts])

    work = dist.isend(held[rank], (rank + 1) % ranks, tag=size % 1000)
    mine, before = blank(), (rank - 1) % ranks
    dist.recv(mine, before, tag=size % 1000)
    assert work is not None
    work.wait()
    expect("send and recv", [mine], [held[before]])


def check_uneven(cases: Cases) -> None:
    """all_to_all with parts of other sizes for each pair of ranks, some empty, some of more than a piece."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for unit in (1, 700_000):
        rows = [[(source + 2 * target) % 3 * unit for target in range(ranks)] for source in range(ranks)]
        columns = [[row[target] for row in rows] for target in range(ranks)]
        full = [random_bytes(torch.int32, sum(row) * 3, "uneven", unit, i).view(-1, 3) for i, row in enumerate(rows)]
        expected = [torch.split(full[source], rows[source])[rank] for source in range(ranks)]

        large = torch.zeros(sum(columns[rank]), 3, dtype=torch.int32)
        dist.all_to_all_single(large, full[rank], columns[rank], rows[rank])
        cases.same(f"all_to_all_single, uneven, {unit}", large, torch.cat(expected))

        lists = [torch.zeros(size, 3, dtype=torch.int32) for size in columns[rank]]
        dist.all_to_all(lists, list(torch.split(full[rank], rows[rank])))
        for i, (found, wanted) in enumerate(zip(lists, expected, strict=True)):
            cases.same(f"all_to_all, uneven, {unit}, {i}", found, wanted)


def layouts(shape: tuple[int, int]) -> Iterator[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """Ways to hold a matrix other than row by row; each gives a tensor of the same numbers."""

    def transposed(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.t().clone(memory_format=torch.contiguous_format).t()

    def with_gaps(tensor: torch.Tensor) -> torch.Tensor:
        room = torch.full((shape[0] * 2, shape[1] * 3), 77).to(tensor.dtype)[1::2, ::3]
        return room.copy_(tensor)

    def at_an_offset(tensor: torch.Tensor) -> torch.Tensor:
        room = torch.zeros(tensor.numel() + 3, dtype=tensor.dtype)[3:]
        return room.copy_(tensor.flatten()).view(shape)

    yield "transposed", transposed
    yield "with gaps", with_gaps
    yield "at an offset", at_an_offset


def check_layouts(cases: Cases) -> None:
    """Tensors that are not contiguous, in and out, are staged; what lies between their elements stays as it is."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    shape = (5, 4)
    held = [random_bytes(torch.int16, 20, "layout", other).view(shape) for other in range(ranks)]
    parts = [[random_bytes(torch.int16, 20, "part", a, b).view(shape) for b in range(ranks)] for a in range(ranks)]
    for name, lay in layouts(shape):

        def blank(lay: Callable[[torch.Tensor], torch.Tensor] = lay) -> torch.Tensor:
            return lay(torch.zeros(shape, dtype=torch.int16))

        mine = lay(held[rank])
        dist.broadcast(mine, 0)
        cases.same(f"broadcast {name}", mine, held[0])

        mine = lay(held[rank])
        dist.all_reduce(mine)
        cases.same(f"all_reduce {name}", mine, torch.stack(held).sum(0).to(torch.int16))

        mine = lay(held[rank])
        dist.reduce(mine, 0)
        if rank == 0:
            cases.same(f"reduce {name}", mine, torch.stack(held).sum(0).to(torch.int16))

        lists = [blank() for _ in range(ranks)]
        dist.all_gather(lists, lay(held[rank]))
        cases.same(f"all_gather {name}", torch.stack(lists), torch.stack(held))

        mine = blank()
        dist.reduce_scatter(mine, [lay(part) for part in parts[rank]])
        cases.same(f"reduce_scatter {name}", mine, sum((part[rank] for part in parts), torch.zeros_like(held[0])))

        lists = [blank() for _ in range(ranks)]
        dist.gather(lay(held[rank]), lists if rank == 0 else None, 0)
        if rank == 0:
            cases.same(f"gather {name}", torch.stack(lists), torch.stack(held))

        mine = blank()
        dist.scatter(mine, [lay(part) for part in parts[0]] if rank == 0 else None, 0)
        cases.same(f"scatter {name}", mine, parts[0][rank])

        lists = [blank() for _ in range(ranks)]
        dist.all_to_all(lists, [lay(part) for part in parts[rank]])
        cases.same(f"all_to_all {name}", torch.stack(lists), torch.stack([part[rank] for part in parts]))

        if shape[0] * ranks % ranks == 0:
            check_flat(cases, name, lay, held)
    mine = torch.zeros(shape, dtype=torch.int16)
    dist.broadcast(held[0].t().contiguous().t() if rank == 0 else mine, 0)
    cases.same("broadcast from one layout to another", mine if rank else held[0], held[0])
    with torch.inference_mode():
        mine = torch.zeros(4, 5).t()
        work = dist.all_reduce(mine.add_(1), async_op=True)
        assert work is not None
        work.wait()
        cases.same("all_reduce in inference mode", mine, torch.full(shape, float(ranks)))
    room = torch.full((3, 4), 7)
    dist.all_reduce(room[:, ::2])
    cases.same("all_reduce in the gaps", room[:, 1::2], torch.full((3, 2), 7))
    cases.same("all_reduce around the gaps", room[:, ::2], torch.full((3, 2), 7 * ranks))


def check_flat(cases: Cases, name: str, lay: Callable[[torch.Tensor], torch.Tensor], held: list[torch.Tensor]) -> None:
    """The forms with one large tensor."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rows = [torch.cat([tensor + shift for shift in range(ranks)]) for tensor in held]
    large = torch.zeros(held[0].shape[1], held[0].shape[0] * ranks, dtype=torch.int16).t()
    dist.all_gather_into_tensor(large, lay(held[rank]))
    cases.same(f"all_gather_into_tensor {name}", large, torch.cat(held))

    mine = lay(torch.zeros_like(held[0]))
    dist.reduce_scatter_tensor(mine, rows[rank].t().contiguous().t())
    cases.same(f"reduce_scatter_tensor {name}", mine, (torch.stack(held).sum(0) + rank * ranks).to(torch.int16))

    large = torch.zeros_like(large)
    dist.all_to_all_single(large, rows[rank].t().contiguous().t())
    cases.same(f"all_to_all_single {name}", large, torch.cat([tensor + rank for tensor in held]))


def check_coalesced(cases: Cases) -> None:
    """Several tensors in one collective, through the group and through the context manager."""
    rank, ranks, group = dist.get_rank(), dist.get_world_size(), default_group()
    sizes = (3, 0, 200_001, 1)

    def held(other: int) -> list[torch.Tensor]:
        return [random_bytes(torch.int32, size, "coalesced", other, size) for size in sizes]

    def sums() -> list[torch.Tensor]:
        return [
            torch.stack(all_ranks).sum(0).to(torch.int32) for all_ranks in zip(*map(held, range(ranks)), strict=True)
        ]

    def expect(name: str, found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            cases.same(f"{name} {i}", one, other)

    mine = held(rank)
    group.allreduce_coalesced(mine).wait()
    expect("allreduce_coalesced", mine, sums())

    gathered = [torch.zeros(ranks * size, dtype=torch.int32) for size in sizes]
    together = [torch.cat(all_ranks) for all_ranks in zip(*map(held, range(ranks)), strict=True)]
    group.allgather_into_tensor_coalesced(gathered, held(rank)).wait()
    expect("allgather_into_tensor_coalesced", gathered, together)

    by_rank = [[torch.zeros(size, dtype=torch.int32) for size in sizes] for _ in range(ranks)]
    group.allgather_coalesced(by_rank, held(rank)).wait()
    for other in range(ranks):
        expect(f"allgather_coalesced of rank {other}", by_rank[other], held(other))

    outputs = [torch.zeros(size, dtype=torch.int32) for size in sizes]
    inputs = [torch.cat([tensor] * ranks) for tensor in held(rank)]
    group.reduce_scatter_tensor_coalesced(outputs, inputs).wait()
    expect("reduce_scatter_tensor_coalesced", outputs, sums())

    for asynchronous in (False, True):
        name = f"coalescing manager, async {asynchronous}"
        mine = held(rank)
        with _coalescing_manager(async_ops=asynchronous) as manager:
            for tensor in mine:
                dist.all_reduce(tensor)
        wait_if(asynchronous, manager)
        expect(f"{name}: all_reduce", mine, sums())
        gathered = [torch.zeros_like(tensor) for tensor in together]
        with _coalescing_manager(async_ops=asynchronous) as manager:
            for output, tensor in zip(gathered, held(rank), strict=True):
                dist.all_gather_into_tensor(output, tensor)
        wait_if(asynchronous, manager)
        expect(f"{name}: all_gather", gathered, together)
        outputs = [torch.zeros(size, dtype=torch.int32) for size in sizes]
        with _coalescing_manager(async_ops=asynchronous) as manager:
            for output, tensor in zip(outputs, inputs, strict=True):
                dist.reduce_scatter_tensor(output, tensor)
        wait_if(asynchronous, manager)
        expect(f"{name}: reduce_scatter", outputs, sums())


def wait_if(asynchronous: bool, manager: _CoalescingManager) -> None:
    if asynchronous:
        manager.wait()  # type: ignore[no-untyped-call]


def main() -> None:
    with job("moves") as cases:
        large_of_width: dict[int, int] = {}
        for dtype in all_dtypes():
            width = torch.empty(0, dtype=dtype).element_size()
            for size in (0, 1, 7, 1000):
                check_all(cases, dtype, size)
            if large_of_width.setdefault(width, 0) == 0:
                large_of_width[width] = BYTES_OF_CHUNK // width + 3
                check_all(cases, dtype, large_of_width[width])
        check_all(cases, torch.int16, 5_000_001)
        check_uneven(cases)
        check_layouts(cases)
        check_coalesced(cases)


if __name__ == "__main__":
    main()
