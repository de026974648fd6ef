"""Every reduction of every dtype, against the same computed by torch from what all ranks put in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import product
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _make_nccl_premul_sum

from tests.mpi_backend.jobs.support import (
    BYTES_OF_CHUNK,
    Cases,
    all_dtypes,
    default_group,
    generator,
    job,
    random_bytes,
)

SUM, AVG, PRODUCT = dist.ReduceOp.SUM, dist.ReduceOp.AVG, dist.ReduceOp.PRODUCT
MIN, MAX = dist.ReduceOp.MIN, dist.ReduceOp.MAX
BITWISE = (dist.ReduceOp.BAND, dist.ReduceOp.BOR, dist.ReduceOp.BXOR)
FACTOR = 2.5

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
WHOLE = (torch.bool, torch.uint8, *SIGNED, *UNSIGNED)
PREMUL_SUM = _make_nccl_premul_sum(FACTOR)
OPS: dict[torch.dtype, Sequence[Any]] = {
    **dict.fromkeys(REAL, (SUM, AVG, PRODUCT, MIN, MAX, PREMUL_SUM)),
    **dict.fromkeys(COMPLEX, (SUM, AVG, PRODUCT, PREMUL_SUM)),
    **dict.fromkeys(WHOLE, (SUM, PRODUCT, MIN, MAX, *BITWISE)),
}
ALL_OPS: tuple[Any, ...] = (SUM, AVG, PRODUCT, MIN, MAX, *BITWISE, PREMUL_SUM)
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-7, -6e-8, 65504.0, 3e38, 1e-40)
# What the messages call the dtypes that torch's C++ names otherwise.
NAMES = {
    "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long", "float16": "Half",
    "float32": "Float", "float64": "Double", "complex32": "ComplexHalf", "complex64": "ComplexFloat",
    "complex128": "ComplexDouble", "bfloat16": "BFloat16",
}  # fmt: skip


def name_of(op: Any) -> str:
    return "PREMUL_SUM" if op is PREMUL_SUM else str(op).rsplit(".", 1)[-1]


def make_input(dtype: torch.dtype, size: int, rank: int) -> torch.Tensor:
    """What a rank puts in. With more than two, numbers whose sums and products are exact: no order is promised."""
    if dtype in WHOLE:
        return random_bytes(dtype, size, rank, dtype, size)
    source = generator(rank, dtype, size)
    if dtype in COMPLEX:
        parts = torch.randint(-4, 5, (size, 2), generator=source)
        return torch.view_as_complex(parts.to(torch.float64)).to(dtype)
    exact = torch.randint(-4, 5, (size,), generator=source).to(dtype)
    if dist.get_world_size() > 2:
        exact[rank::17] = math.inf
        exact[5::23] = math.nan
        return exact
    numbers = torch.randn(size, generator=source, dtype=torch.float64).to(dtype)
    special = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    picked = torch.randint(len(special), (size,), generator=source)
    return torch.where(torch.rand(size, generator=source) < 0.2, special[picked], numbers)


def unsigned(op: Any, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """torch has no arithmetic for these: signed numbers do, with their sign flipped where the order matters."""
    signed = UNSIGNED[tensors[0].dtype]
    flip = torch.iinfo(signed).min if op in (MIN, MAX) else 0
    result = expected_of(op, [tensor.view(signed) ^ flip for tensor in tensors])
    return (result ^ flip).view(tensors[0].dtype)


def expected_of(op: Any, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    dtype = tensors[0].dtype
    if dtype in UNSIGNED:
        return unsigned(op, tensors)
    if dtype in COMPLEX and op in (AVG, PREMUL_SUM):
        return torch.view_as_complex(expected_of(op, [torch.view_as_real(tensor) for tensor in tensors]))
    if op == AVG and dtype == torch.float16:  # the sum may be too large for it
        return reduce(torch.add, [tensor / len(tensors) for tensor in tensors])
    if op == AVG:
        return reduce(torch.add, tensors) / len(tensors)
    if op is PREMUL_SUM:
        return reduce(torch.add, [tensor * FACTOR for tensor in tensors])
    functions = {
        SUM: torch.logical_or if dtype == torch.bool else torch.add,
        PRODUCT: torch.logical_and if dtype == torch.bool else torch.mul,
        MIN: torch.logical_and if dtype == torch.bool else torch.minimum,
        MAX: torch.logical_or if dtype == torch.bool else torch.maximum,
        **dict(zip(BITWISE, (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor), strict=True)),
    }
    return reduce(functions[op], tensors)


def check_all(cases: Cases, dtype: torch.dtype, op: Any, size: int) -> None:
    """All collectives that reduce, through the group itself: torch.distributed hands it complex numbers as pairs."""
    group, rank, ranks = default_group(), dist.get_rank(), dist.get_world_size()
    name = f"{name_of(op)} of {size} {dtype}"
    inputs = [make_input(dtype, size, other) for other in range(ranks)]
    expected = expected_of(op, inputs)

    mine = inputs[rank].clone()
    options = dist.AllreduceOptions()
    options.reduceOp = op
    group.allreduce([mine], options).wait()
    cases.same(f"all_reduce {name}", mine, expected)

    root = size % ranks
    mine = inputs[rank].clone()
    to_root = dist.ReduceOptions()
    to_root.reduceOp, to_root.rootRank = op, root
    group.reduce([mine], to_root).wait()
    cases.same(f"reduce to {root} {name}", mine, expected if rank == root else mine)

    rows = [torch.cat([make_input(dtype, size, other + shift) for shift in range(ranks)]) for other in range(ranks)]
    expected = expected_of(op, rows).view(ranks, size)[rank]
    scattered = dist.ReduceScatterOptions()
    scattered.reduceOp = op
    for form in ("list", "tensor"):
        source, output = rows[rank].clone(), torch.empty_like(mine)
        if form == "list":
            group.reduce_scatter([output], [list(source.view(ranks, size))], scattered).wait()
        else:
            group._reduce_scatter_base(output, source, scattered).wait()
        cases.same(f"reduce_scatter {form} {name}", output, expected)
        cases.same_bytes(f"reduce_scatter {form} {name}: input untouched", source, rows[rank])


def check_values(cases: Cases) -> None:
    for dtype, ops in OPS.items():
        width = torch.empty(0, dtype=dtype).element_size()
        for op in ops:
            more_than_a_chunk = [BYTES_OF_CHUNK // width + 3] if op in (SUM, AVG, PREMUL_SUM) else []
            for size in (0, 1, 7, 1000, *more_than_a_chunk):
                check_all(cases, dtype, op, size)


def check_public(cases: Cases) -> None:
    """The same through torch.distributed, which has a way of its own for complex numbers."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for dtype, op in product((torch.bfloat16, torch.complex64), (SUM, AVG, PREMUL_SUM)):
        inputs = [make_input(dtype, 1001, other) for other in range(ranks)]
        expected = expected_of(op, inputs)
        name = f"{name_of(op)} of {dtype}, public"
        mine = inputs[rank].clone()
        dist.all_reduce(mine, op=op)
        cases.same(f"all_reduce {name}", mine, expected)
        mine = inputs[rank].clone()
        dist.reduce(mine, ranks - 1, op=op)
        cases.same(f"reduce {name}", mine, expected if rank == ranks - 1 else mine)
        mine = torch.empty_like(mine)
        dist.reduce_scatter(mine, [inputs[rank]] * ranks, op=op)
        cases.same(f"reduce_scatter {name}", mine, expected)
        mine = torch.empty_like(mine)
        dist.reduce_scatter_tensor(mine, torch.cat([inputs[rank]] * ranks), op=op)
        cases.same(f"reduce_scatter_tensor {name}", mine, expected)


def check_sparse(cases: Cases) -> None:
    """Sums of tensors with as many elements as each rank likes, some in the same places, some none at all."""
    rank, ranks = dist.get_rank(), dist.get_world_size()

    def held(other: int) -> torch.Tensor:
        columns = torch.arange(3 * other)
        places = torch.stack([torch.full_like(columns, 1), columns % 4])  # more than one in a place
        return torch.sparse_coo_tensor(places, columns + 1.0, (2, 5), check_invariants=True)

    mine = held(rank)
    dist.all_reduce(mine)
    expected = reduce(torch.add, [held(other).to_dense() for other in range(ranks)])
    cases.same("all_reduce of sparse tensors", mine.to_dense(), expected)
    filled = min(4, 3 * (ranks - 1))
    cases.same("all_reduce of sparse tensors, elements", mine.coalesce().values(), expected[1, :filled])


def check_average_of_large(cases: Cases) -> None:
    mine = torch.full((3,), 60000.0, dtype=torch.float16)
    dist.all_reduce(mine, op=AVG)
    cases.true("average of large fp16 numbers", bool(((mine - 60000).abs() <= 32).all()), mine)


def check_refusals(cases: Cases) -> None:
    """What makes no sense raises on every rank, names op and dtype, and leaves the group usable."""
    group, ranks = default_group(), dist.get_world_size()
    for dtype, op in product(all_dtypes(), ALL_OPS):
        if op in OPS.get(dtype, ()):
            continue
        name = str(dtype).removeprefix("torch.")
        told = f"ReduceOp.{name_of(op)} is not defined for tensors of dtype {NAMES.get(name, name)}"
        told = told if name in NAMES else told.removesuffix(name)
        tensor, large = torch.empty(3, dtype=dtype), torch.empty(3 * ranks, dtype=dtype)
        options, to_root = dist.AllreduceOptions(), dist.ReduceOptions()
        several, scattered = dist.AllreduceCoalescedOptions(), dist.ReduceScatterOptions()
        for each in (options, to_root, several, scattered):
            each.reduceOp = op
        with cases.refused(f"all_reduce {name_of(op)} {name}", told):
            group.allreduce([tensor], options)
        with cases.refused(f"all_reduce_coalesced {name_of(op)} {name}", told):
            group.allreduce_coalesced([tensor], several)
        with cases.refused(f"reduce {name_of(op)} {name}", told):
            group.reduce([tensor], to_root)
        with cases.refused(f"reduce_scatter {name_of(op)} {name}", told):
            group.reduce_scatter([tensor], [[tensor] * ranks], scattered)
        with cases.refused(f"reduce_scatter_tensor {name_of(op)} {name}", told):
            group._reduce_scatter_base(tensor, large, scattered)
    check_all(cases, torch.float32, SUM, 5)


def main() -> None:
    with job("reductions") as cases:
        check_values(cases)
        check_public(cases)
        check_sparse(cases)
        check_average_of_large(cases)
        check_refusals(cases)


if __name__ == "__main__":
    main()
