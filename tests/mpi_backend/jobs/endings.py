"""A job that ends as it should, in the way named on the command line: nothing is said, and nothing is left hanging."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

NAP = 2.0  # seconds
IDLE = 0.25  # seconds of processor time that a rank may use while it waits for NAP seconds


def all_reduce() -> None:
    total = torch.ones(3)
    dist.all_reduce(total)
    assert total.tolist() == [dist.get_world_size()] * 3, total


def nothing_destroyed() -> None:
    dist.new_group()
    all_reduce()


def twice() -> None:
    for _ in range(3):
        all_reduce()
        dist.destroy_process_group()
        dist.init_process_group("mpi")
    all_reduce()
    dist.destroy_process_group()


def work_never_waited_for() -> None:
    tensors = [torch.ones(100_000) for _ in range(20)]
    for tensor in tensors:
        dist.all_reduce(tensor, async_op=True)


def message_sent_and_destroyed() -> None:
    """The sender is gone from its group before the message is fetched."""
    size = 2_000_000
    if dist.get_rank() == 0:
        dist.isend(torch.ones(size), 1)
    elif dist.get_rank() == 1:
        time.sleep(0.5)
        received = torch.zeros(size)
        dist.recv(received, 0)
        assert float(received.sum()) == size
    dist.destroy_process_group()


def messages_never_waited_for() -> None:
    """Large ones still come over, though nobody looks after them."""
    rank, size = dist.get_rank(), 2_000_000
    for _ in range(3):
        if rank == 0:
            dist.isend(torch.ones(size), 1)
        elif rank == 1:
            dist.irecv(torch.zeros(size), 0)


def message_that_never_comes() -> None:
    dist.irecv(torch.zeros(3), 1 - dist.get_rank())
    all_reduce()


def receive_that_times_out_at_the_end() -> None:
    """Nobody waits for it, so it spoils nothing."""
    group = dist.new_group(timeout=timedelta(seconds=1))
    dist.irecv(torch.zeros(3), 1 - dist.get_rank(), group=group)
    all_reduce()
    if dist.get_rank() == 1:
        time.sleep(NAP)


def large_message_waits() -> None:
    """Whoever sends leaves the core to others, once it is clear that nobody is in a hurry to receive."""
    message = torch.ones(1_000_000)
    if dist.get_rank() == 0:
        work = dist.isend(message, 1)
        time.sleep(NAP)
        expect_idle(os.getpid(), "while a message waits")
        assert work is not None
        work.wait()
    else:
        time.sleep(2 * NAP + 0.5)
        dist.recv(message, 0)


def work_under_way_in_a_thread() -> None:
    """A daemon thread is within a collective when the interpreter ends."""

    def work() -> None:
        while True:
            dist.recv(torch.zeros(1), 1 - dist.get_rank())

    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)


def exit_by_number() -> None:
    all_reduce()
    sys.exit(0)


def callback_at_the_end() -> None:
    """What a callback holds is released while the interpreter ends."""
    for _ in range(20):
        work = dist.all_reduce(torch.ones(1000), async_op=True)
        assert work is not None
        work.get_future().then(lambda done: done.value()[0].sum())


def processor_time(process: int) -> float:
    """Seconds that a process and all its threads have used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def expect_idle(process: int, when: str) -> None:
    """Watch a process for NAP seconds."""
    start = processor_time(process)
    time.sleep(NAP)
    used = processor_time(process) - start
    assert used < IDLE, f"{used} s of processor time {when}"


def one_works_longer() -> None:
    """Who waits leaves the core to who works: in a collective, in a message, and at the end."""
    rank, work = dist.get_rank(), None
    dist.barrier()
    for wait in (dist.barrier, all_reduce, lambda: dist.recv(torch.zeros(1), 0), None):
        if rank == 1:
            start = processor_time(os.getpid())
            if wait is None:
                dist.send(torch.tensor([os.getpid()]), 0)
                return
            wait()
            used = processor_time(os.getpid()) - start
            assert used < IDLE, f"{wait}: {used} s of processor time while waiting"
        elif wait is not None:
            time.sleep(NAP)
            dist.send(torch.zeros(1), 1) if wait not in (dist.barrier, all_reduce) else wait()
    del work
    pid = torch.zeros(1, dtype=torch.int64)
    dist.recv(pid, 1)
    time.sleep(1)  # it ends meanwhile
    expect_idle(int(pid), "at the end")


ENDINGS: dict[str, Callable[[], None]] = {
    "nothing destroyed": nothing_destroyed,
    "twice": twice,
    "work never waited for": work_never_waited_for,
    "message sent and destroyed": message_sent_and_destroyed,
    "messages never waited for": messages_never_waited_for,
    "message that never comes": message_that_never_comes,
    "receive that times out at the end": receive_that_times_out_at_the_end,
    "large message waits": large_message_waits,
    "work under way in a thread": work_under_way_in_a_thread,
    "exit by number": exit_by_number,
    "callback at the end": callback_at_the_end,
    "one works longer": one_works_longer,
}


def main() -> None:
    dist.init_process_group("mpi")
    ENDINGS[sys.argv[1]]()


if __name__ == "__main__":
    main()
