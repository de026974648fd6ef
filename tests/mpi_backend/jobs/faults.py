"""A rank fails, in the way named on the command line. The whole job must end, soon, as failed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from tests.mpi_backend.jobs.support import say

FOREVER = 600.0  # seconds: much longer than the test lets the job run


def fail() -> None:
    message = "the fault"
    raise ValueError(message)


def segfault() -> None:
    ctypes.string_at(0)


def never_come() -> None:
    time.sleep(FOREVER)


def all_reduce() -> None:
    dist.all_reduce(torch.ones(3))


def all_reduce_async() -> None:
    work = dist.all_reduce(torch.ones(3), async_op=True)
    assert work is not None
    work.wait()


def receive() -> None:
    dist.recv(torch.ones(3), 1)


def make_group() -> None:
    dist.new_group([0, 1])


def make_group_in_a_second() -> None:
    dist.new_group([0, 1], timeout=timedelta(seconds=1))


def barrier() -> None:
    dist.barrier()


def compute() -> None:
    """Busy, in no call of ours."""
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        torch.ones(1000).sum()


def fail_with_work_under_way() -> None:
    dist.all_reduce(torch.ones(3), async_op=True)
    dist.irecv(torch.ones(3), 0)
    fail()


def fail_while_sending() -> None:
    dist.isend(torch.ones(3_000_000), 0)
    fail()


def all_reduce_and_go_on() -> None:
    """The exception is caught, and the process ends as if nothing had happened."""
    try:
        all_reduce()
    except RuntimeError as error:
        say(error)
    try:
        all_reduce()
    except RuntimeError as error:
        say(f"again: {error}")


def all_reduce_in_vain() -> None:
    try:
        all_reduce()
    except RuntimeError as error:
        say(error)
    never_come()


def all_reduce_late() -> None:
    """The other has given up by then, and called for something else anyway."""
    time.sleep(2)
    dist.all_reduce(torch.ones(4))


def time_out_while_sending() -> None:
    """The memory of the message is used for something else while the receiver may still read it."""
    work = dist.isend(torch.ones(3_000_000), 1)
    with suppress(RuntimeError):
        all_reduce()
    del work
    kept = []
    for _ in range(8):
        kept.append(torch.full((3_000_000,), -1.0))
        time.sleep(0.5)
    fail()


def receive_late() -> None:
    time.sleep(2)
    message = torch.zeros(3_000_000)
    try:
        dist.recv(message, 0)
    finally:
        say(f"wrong: {int((message < 0).sum())}")
    never_come()


def all_reduce_in_group() -> None:
    group = dist.new_group([0, 1], timeout=timedelta(seconds=1))
    dist.all_reduce(torch.ones(3), group=group)


def stay_away_from_group() -> None:
    dist.new_group([0, 1], timeout=timedelta(seconds=1))
    never_come()


def send_other_length() -> None:
    dist.send(torch.ones(5), 0)
    never_come()


# What rank 0 does, what rank 1 does, and the timeout of the group in seconds.
FAULTS: dict[str, tuple[Callable[[], None], Callable[[], None], float]] = {
    "raise, others in all_reduce": (all_reduce, fail, FOREVER),
    "raise, others in async all_reduce": (all_reduce_async, fail, FOREVER),
    "raise, others in recv": (receive, fail, FOREVER),
    "raise, others in new_group": (make_group, fail, FOREVER),
    "raise, others in barrier": (barrier, fail, FOREVER),
    "raise with work under way": (all_reduce_async, fail_with_work_under_way, FOREVER),
    "raise while sending": (barrier, fail_while_sending, FOREVER),
    "sys.exit": (all_reduce, lambda: sys.exit(3), FOREVER),
    "os._exit": (all_reduce, lambda: os._exit(3), FOREVER),
    "killed": (all_reduce, lambda: os.kill(os.getpid(), signal.SIGKILL), FOREVER),
    "killed, others compute": (compute, lambda: os.kill(os.getpid(), signal.SIGKILL), FOREVER),
    "segfault": (all_reduce, segfault, FOREVER),
    "interrupted": (all_reduce, lambda: os.kill(os.getpid(), signal.SIGINT), FOREVER),
    "timeout of all_reduce": (all_reduce, never_come, 1),
    "timeout of recv": (receive, never_come, 1),
    "timeout of new_group": (make_group_in_a_second, never_come, FOREVER),
    "timeout of a group": (all_reduce_in_group, stay_away_from_group, FOREVER),
    "timeout that is caught": (all_reduce_and_go_on, never_come, 1),
    "late for a timeout": (all_reduce_in_vain, all_reduce_late, 1),
    "timeout while sending": (time_out_while_sending, receive_late, 1),
    "longer message": (receive, send_other_length, FOREVER),
}


def main() -> None:
    first, second, timeout = FAULTS[sys.argv[1]]
    dist.init_process_group("mpi", timeout=timedelta(seconds=timeout))
    dist.barrier()
    (first if dist.get_rank() == 0 else second)()


if __name__ == "__main__":
    main()
