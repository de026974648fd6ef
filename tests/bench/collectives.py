"""What two ranks measure: each collective through MPI and gloo in turn, and a copy of the same bytes."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]

KIB, MIB = 1 << 10, 1 << 20
WARM_UP = 3


def runs_for(size: int) -> int:
    """Enough for a steady median within seconds: gloo takes 1 ms for the least and 40 ms for 64 MB."""
    return 101 if size <= MIB else 31 if size <= 16 * MIB else 15


def seconds(call: Callable[[], object], barrier: Callable[[], object]) -> float:
    """How long one call takes, once both ranks are ready for it."""
    barrier()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(calls: dict[str, Callable[[], object]], runs: int, barrier: Callable[[], object]) -> dict[str, float]:
    """Medians in seconds, the calls in turn, so that a slow moment hits all."""
    for _ in range(WARM_UP):
        for call in calls.values():
            seconds(call, barrier)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(seconds(call, barrier))
    return {name: median(found) for name, found in times.items()}


def collectives(mpi: Any, barrier: Callable[[], object]) -> dict[str, dict[str, float]]:
    """The medians of each collective through `mpi`, through gloo (the default group), and of a copy of the bytes."""

    def case(size: int, dtype: torch.dtype, call: Callable[[torch.Tensor, Any], object]) -> dict[str, float]:
        tensor = torch.zeros(size // dtype.itemsize, dtype=dtype)
        other = torch.zeros_like(tensor)
        calls = {
            "mpi": lambda: call(tensor, mpi),
            "gloo": lambda: call(tensor, None),
            "memcpy": lambda: other.copy_(tensor),
        }
        return {"bytes": float(size), **compare(calls, runs_for(size), barrier)}

    def all_reduce(tensor: torch.Tensor, group: Any) -> object:
        return dist.all_reduce(tensor, group=group)

    gathered = torch.zeros(2 * 25 * MIB // 4)
    scattered = torch.zeros(25 * MIB // 4)
    return {
        "all_reduce fp32 4 KB": case(4 * KIB, torch.float32, all_reduce),
        "all_reduce fp32 256 KB": case(256 * KIB, torch.float32, all_reduce),
        "all_reduce fp32 4 MB": case(4 * MIB, torch.float32, all_reduce),
        "all_reduce fp32 64 MB": case(64 * MIB, torch.float32, all_reduce),
        "all_reduce fp32 117 MB": case(128 * 28 * 2 * 4096 * 4, torch.float32, all_reduce),
        "all_reduce bf16 32 MB": case(32 * MIB, torch.bfloat16, all_reduce),
        "broadcast 25 MB": case(25 * MIB, torch.float32, lambda tensor, group: dist.broadcast(tensor, 0, group=group)),
        "all_gather 25 MB a rank": case(
            25 * MIB, torch.float32, lambda tensor, group: dist.all_gather_into_tensor(gathered, tensor, group=group)
        ),
        "all_gather, list, 25 MB a rank": case(
            25 * MIB, torch.float32, lambda tensor, group: dist.all_gather(list(gathered.chunk(2)), tensor, group=group)
        ),
        "reduce_scatter 25 MB a rank": case(
            50 * MIB, torch.float32, lambda tensor, group: dist.reduce_scatter_tensor(scattered, tensor, group=group)
        ),
    }


def overlap(mpi: Any, barrier: Callable[[], object]) -> dict[str, float]:
    """A step of DDP with 100 MB of gradients: as it is, with each bucket awaited, and without communication."""
    layers = [nn.Linear(1024, 1024, bias=False) for _ in range(25)]  # 4 MB each
    model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers), process_group=mpi)
    awaited = nn.parallel.DistributedDataParallel(nn.Sequential(*layers), process_group=mpi)

    def wait_at_once(_state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        dist.all_reduce(bucket.buffer(), group=mpi)
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    awaited.register_comm_hook(None, wait_at_once)
    data = torch.randn(128, 1024)

    def silent() -> None:
        with model.no_sync():
            model(data).sum().backward()

    return compare(
        {
            "overlapped": lambda: model(data).sum().backward(),
            "blocking": lambda: awaited(data).sum().backward(),
            "silent": silent,
        },
        15,
        barrier,
    )


def main() -> None:
    """Measure, and let rank 0 write the medians as JSON into the file that is named."""
    rank = next(int(os.environ[name]) for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK") if name in os.environ)
    warnings.simplefilter("ignore")  # gloo's all_gather_into_tensor is said to be deprecated
    file = Path(sys.argv[1]).absolute()
    meeting = file.with_name("meeting")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mpi = dist.new_group(backend="mpi")

    def barrier() -> None:
        dist.barrier(group=mpi)

    found = {"collectives": collectives(mpi, barrier), "step": overlap(mpi, barrier)}
    if rank == 0:
        file.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
