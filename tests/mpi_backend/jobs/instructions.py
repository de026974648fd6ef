"""The reductions of 16-bit floats give the same bits with all instructions, so ranks on different processors agree."""

from __future__ import annotations

import importlib
from itertools import product

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import bytes_of, job, random_bytes, say

OPS = (dist.ReduceOp.SUM, dist.ReduceOp.PRODUCT, dist.ReduceOp.MIN, dist.ReduceOp.MAX, dist.ReduceOp.AVG)
SIZES = (1, 7, 16, 33, 65_536)


def main() -> None:
    with job("instructions") as cases:
        library = importlib.import_module("glmpatch_mpi._C")
        best, rank = library.isa(), dist.get_rank()
        known = ("scalar", "avx2", "avx512")
        usable = known[: known.index(best) + 1]
        for dtype, op, size in product((torch.bfloat16, torch.float16), OPS, SIZES):
            mine = random_bytes(dtype, size, rank, dtype, size)  # every pattern: NaN, infinities, the tiniest numbers
            results = []
            for own, others in product(usable, usable):
                library.set_isa(own if rank == 0 else others)
                tensor = mine.clone()
                dist.all_reduce(tensor, op=op)
                results.append(bytes_of(tensor))
                everywhere = [torch.empty_like(results[-1]) for _ in range(dist.get_world_size())]
                dist.all_gather(everywhere, results[-1])
                name = f"{op} of {size} {dtype}, {own} and {others}"
                cases.true(f"{name}, on all ranks", all(torch.equal(one, results[-1]) for one in everywhere))
                cases.same(name, results[-1], results[0])
        library.set_isa(best)
        with cases.refused("instructions that there are not", "abacus"):
            library.set_isa("abacus")
        cases.true("at least one", len(usable) > 0, usable)
        say(f"instructions: {', '.join(usable)}")


if __name__ == "__main__":
    main()
