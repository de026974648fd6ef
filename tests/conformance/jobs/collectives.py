"""Run by two ranks: what torch builds on the collectives, and what torch's own Python does not give to MPI."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.nn import functional as differentiable_functional
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from tests.conformance.jobs.support import model, run

RANKS = 2

differentiable: Any = differentiable_functional  # it has no types


def of_rank(rank: int) -> Tensor:
    return torch.arange(4.0) + 10 * rank


def mine() -> Tensor:
    return of_rank(dist.get_rank())


def same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected)


def objects() -> None:
    rank = dist.get_rank()
    told = {"rank": rank, "text": "x" * (1 + 100_000 * rank)}
    everything = [{"rank": r, "text": "x" * (1 + 100_000 * r)} for r in range(RANKS)]
    gathered: list[Any] = [None] * RANKS
    dist.all_gather_object(gathered, told)
    assert gathered == everything
    on_root: list[Any] | None = None if rank else [None] * RANKS
    dist.gather_object(told, on_root)
    assert on_root == (None if rank else everything)
    sent: list[Any] = [told] if rank else [None]
    dist.broadcast_object_list(sent, src=1)
    assert sent == everything[1:]
    got: list[Any] = [None]
    dist.scatter_object_list(got, None if rank else everything)
    assert got == [told]
    if rank:
        dist.send_object_list([told], dst=0)
    else:
        dist.recv_object_list(got, src=1)
        assert got == everything[1:]


def meshes() -> None:
    for shape in ((1, RANKS), (RANKS, 1)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("outer", "inner"))
        for name, size in zip(("outer", "inner"), shape, strict=True):
            value = mine()
            dist.all_reduce(value, group=mesh[name].get_group())
            same(value, mine() if size == 1 else of_rank(0) + of_rank(1))


def distributed_tensors() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    left, right = torch.arange(35.0).view(5, 7), torch.arange(21.0).view(7, 3)  # 5 and 7 do not divide evenly
    product: Any = distribute_tensor(left, mesh, [Shard(1)]) @ distribute_tensor(right, mesh, [Shard(0)])
    assert product.placements == (Partial("sum"),)
    same(product.full_tensor(), left @ right)
    by_column = product.redistribute(placements=[Shard(1)])
    same(by_column.redistribute(placements=[Shard(0)]).full_tensor(), left @ right)
    same(by_column.redistribute(placements=[Replicate()]).to_local(), left @ right)


def functional_collectives() -> None:
    world, total = dist.group.WORLD, of_rank(0) + of_rank(1)
    assert world is not None
    rank, whole = dist.get_rank(), torch.cat([of_rank(0), of_rank(1)])
    same(functional.all_reduce(mine(), "sum", world).add(0), total)
    same(functional.all_reduce(mine(), "avg", world).add(0), total / RANKS)
    same(functional.broadcast(mine(), 1, world).add(0), of_rank(1))
    same(functional.all_gather_tensor(mine(), 0, world).add(0), whole)
    same(functional.reduce_scatter_tensor(mine(), "sum", 0, world).add(0), total.chunk(RANKS)[rank])
    uneven = functional.all_to_all_single(mine(), [1, 1] if rank == 0 else [3, 3], [1, 3], world)
    same(uneven.add(0), torch.cat([of_rank(r)[1:] if rank else of_rank(r)[:1] for r in range(RANKS)]))
    two = [mine(), -mine()]
    reduced = functional.all_reduce_coalesced(two, "sum", world)
    same([each.add(0) for each in reduced], [total, -total])
    gathered = functional.all_gather_into_tensor_coalesced(two, world)
    same([each.add(0) for each in gathered], [whole, -whole])
    scattered = functional.reduce_scatter_tensor_coalesced(two, "sum", [0, 0], world)
    same([each.add(0) for each in scattered], [total.chunk(RANKS)[rank], -total.chunk(RANKS)[rank]])


def check_gradient(forward: Callable[[Tensor], Tensor], expected: Tensor) -> None:
    """Each rank weighs all it gets by its number, from 1."""
    leaf = mine().requires_grad_()
    (forward(leaf).sum() * (dist.get_rank() + 1)).backward()  # type: ignore[no-untyped-call]
    same(leaf.grad, expected)


def gradients_of_functional_collectives() -> None:
    world = dist.group.WORLD
    assert world is not None
    of_all, by_receiver = torch.full((4,), 3.0), torch.tensor([1.0, 1.0, 2.0, 2.0])
    check_gradient(lambda leaf: functional.all_gather_tensor_autograd(leaf, 0, world), of_all)
    check_gradient(lambda leaf: functional.reduce_scatter_tensor_autograd(leaf, "sum", 0, world), by_receiver)
    check_gradient(lambda leaf: functional.all_to_all_single_autograd(leaf, [2, 2], [2, 2], world), by_receiver)


def differentiable_collectives() -> None:
    rank = dist.get_rank()
    of_all, by_receiver = torch.full((4,), 3.0), torch.tensor([1.0, 1.0, 2.0, 2.0])
    from_root, to_root = of_all if rank == 0 else torch.zeros(4), torch.ones(4)

    def pieces() -> list[Tensor]:
        return [torch.empty(2) for _ in range(RANKS)]

    def split(leaf: Tensor) -> list[Tensor]:
        return list(leaf.view(RANKS, 2).unbind())

    cases: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (differentiable.all_reduce, of_all),
        (lambda leaf: torch.cat(differentiable.all_gather(leaf)), of_all),
        (lambda leaf: differentiable.broadcast(leaf, 0), from_root),
        (lambda leaf: differentiable.reduce(leaf, 0), to_root),
        (lambda leaf: torch.cat(differentiable.gather(leaf, 0)), to_root),
        (lambda leaf: differentiable.scatter(split(leaf), 0), by_receiver if rank == 0 else torch.zeros(4)),
        (lambda leaf: differentiable.reduce_scatter(torch.empty(2), split(leaf)), by_receiver),
        (lambda leaf: torch.cat(differentiable.all_to_all(pieces(), split(leaf))), by_receiver),
        (lambda leaf: differentiable.all_to_all_single(torch.empty(4), leaf), by_receiver),
    ]
    for forward, expected in cases:
        check_gradient(forward, expected)


def collectives_in_callbacks() -> None:
    """A callback waits for a collective that it starts. Rank 1 is late, so that it is called once all is done."""
    first, second = mine(), mine()

    def then_the_second(_: Future[Any]) -> Tensor:
        work = dist.all_reduce(second, async_op=True)
        assert work is not None
        value: Tensor = work.get_future().wait()[0]
        return value

    time.sleep(0.5 * dist.get_rank())
    work = dist.all_reduce(first, async_op=True)
    assert work is not None
    same(work.get_future().then(then_the_second).wait(), of_rank(0) + of_rank(1))
    same(first, second)


def refused_by_torch() -> None:
    """Nothing that the backend could do; once torch gives it to MPI, this fails and the limit can go."""
    world: Any = dist.group.WORLD
    replica = DistributedDataParallel(model())
    gathered = differentiable._all_gather_base(torch.empty(4 * RANKS), mine().requires_grad_())
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (partial(replica.register_comm_hook, None, default_hooks.bf16_compress_hook), TypeError, "NCCL"),
        (gathered.sum().backward, RuntimeError, "Backend not supported"),
        (dist.monitored_barrier, ValueError, "only implemented for GLOO"),
        (partial(dist.new_group, use_local_synchronization=True), ValueError, "MPI backend doesn't support"),
        (partial(dist.new_group, backend="gloo"), RuntimeError, "Not implemented"),
        (partial(dist.split_group, None, [[0], [1]]), RuntimeError, "device"),
        (world._get_sequence_number_for_group, RuntimeError, "sequence"),
    ]
    for call, error, text in cases:
        try:
            call()
        except error as refusal:
            assert re.search(text, str(refusal)), refusal  # noqa: PT017
        else:
            raise AssertionError(f"{call} is not refused any more")


if __name__ == "__main__":
    run(
        (
            objects,
            meshes,
            distributed_tensors,
            functional_collectives,
            gradients_of_functional_collectives,
            differentiable_collectives,
            collectives_in_callbacks,
            refused_by_torch,
        )
    )
