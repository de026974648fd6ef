"""Processes forked from one that has initialised MPI: they neither hang nor harm it, and can't call it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from tests.mpi_backend.jobs.support import Cases, job

FORK = multiprocessing.get_context("fork")


class Squares(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index**2)


def check_alive(cases: Cases, name: str) -> None:
    total = torch.ones(1000)
    dist.all_reduce(total)
    cases.same(f"the parent after {name}", total, torch.full((1000,), float(dist.get_world_size())))


def exit_code_of(child: Callable[[], None]) -> int:
    """What becomes of a child made by os.fork that runs this to its end, as a whole Python, exit handlers and all."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except Exception:  # noqa: BLE001 - it must not go on as its parent
            traceback.print_exc()
            sys.exit(5)
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def expect_refusal(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:
        if "forked" in str(error) and "spawn" in str(error):
            return
        raise
    sys.exit(4)


def call_all() -> None:
    peer = 1 - min(dist.get_rank(), 1)
    expect_refusal(lambda: dist.all_reduce(torch.ones(1)))
    expect_refusal(lambda: dist.all_reduce(torch.ones(1), async_op=True))
    expect_refusal(dist.barrier)
    expect_refusal(lambda: dist.send(torch.ones(1), peer))
    expect_refusal(dist.new_group)
    expect_refusal(lambda: dist.recv(torch.ones(1), peer))


def destroy() -> None:
    dist.destroy_process_group()
    gc.collect()


def destroy_and_start_again() -> None:
    destroy()
    expect_refusal(lambda: dist.init_process_group("mpi"))


def main() -> None:
    with job("forks") as cases:
        for _ in range(2):
            batches = DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context="fork")
            values = [int(value) for batch in batches for value in batch]
            cases.true("DataLoader", values == [i**2 for i in range(20)], values)
            check_alive(cases, "DataLoader")
        with FORK.Pool(2) as pool:
            cases.true("pool", pool.map(abs, range(-9, 0)) == list(range(9, 0, -1)))
        check_alive(cases, "pool")
        process = FORK.Process(target=call_all)
        process.start()
        process.join()
        cases.true("multiprocessing, collectives in the child", process.exitcode == 0, process.exitcode)
        for name, child in {
            "nothing": lambda: None,
            "collectives": call_all,
            "destroy_process_group": destroy,
            "destroy and init": destroy_and_start_again,
        }.items():
            code = exit_code_of(child)
            cases.true(f"os.fork, {name} in the child", code == 0, code)
            check_alive(cases, f"os.fork, {name}")

        tensors = [torch.ones(300_000) for _ in range(10)]
        works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        code = exit_code_of(lambda: None)
        cases.true("os.fork with work under way", code == 0, code)
        code = exit_code_of(lambda: expect_refusal(lambda: [work.wait() for work in works if work is not None]))
        cases.true("os.fork, wait for what the parent began", code == 0, code)
        for work in works:
            assert work is not None
            work.wait()
        for tensor in tensors:
            cases.same("work of the parent", tensor, torch.full((300_000,), float(dist.get_world_size())))


if __name__ == "__main__":
    main()
