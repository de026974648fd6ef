"""Examines many files, several at a time, each in a process that can be ended at any moment."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import TypeAlias

from glmpatch.checking.cache import encode
from glmpatch.checking.examine import examine
from glmpatch.errors import EnvironmentLacksError, GlmpatchError
from glmpatch.patching.model import Transform

Job: TypeAlias = tuple[str, bytes, tuple[Transform, ...]]
"""A file to examine: its path, its bytes, and the transforms to run on it."""

# With fewer files than that, starting other processes takes longer than doing the work.
_WORTH_A_WORKER = 12
_PR_SET_PDEATHSIG = 1


def examine_all(jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
    """Examine files, and yield the place of each in `jobs` with its encoded result, as they come.

    The processes end at once when the iterator is closed, and when this process is killed.

    Raises:
        EnvironmentLacksError: One of the processes was killed, as by the kernel where memory runs out; or a program
            that they need is missing or was killed.
    """
    count = min(len(os.sched_getaffinity(0)), len(jobs) // _WORTH_A_WORKER + 1)
    if count == 1:
        yield from ((place, encode(examine(*job))) for place, job in enumerate(jobs))
        return
    todo = iter(enumerate(jobs))
    busy: dict[Connection, int] = {}
    with ExitStack() as stack:
        idle = [stack.enter_context(_worker()) for _ in range(count)]
        while True:
            for worker, (place, job) in zip(idle, todo, strict=False):
                with _watching(job):
                    worker.send(job)
                busy[worker] = place
            if not busy:
                return
            done = set(wait(busy))
            idle = [worker for worker in busy if worker in done]
            for worker in idle:
                place = busy.pop(worker)
                with _watching(jobs[place]):
                    result = worker.recv()
                if isinstance(result, Exception):
                    raise result
                yield place, result


@contextmanager
def _watching(job: Job) -> Iterator[None]:
    """Say of a worker that no longer answers what it was at."""
    try:
        yield
    except (EOFError, OSError) as error:
        path, data, _ = job
        raise EnvironmentLacksError(
            f"a process was killed while it tried the patches on {path} ({len(data):,} bytes)",
            hint="this is what happens when memory runs out: free some, and run it again",
        ) from error


@contextmanager
def _worker() -> Iterator[Connection]:
    """The connection to a process that examines what it is sent."""
    # Not forked: a progress display has a thread.
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_work, args=(its, os.getpid()), daemon=True)
    process.start()
    try:
        its.close()
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(jobs: Connection, parent: int) -> None:
    # Ctrl-C is the parent's business. A parent that was killed takes us along, whatever we are at.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # The trees of a file are gone when it is done: there is little for the collector to find in between.
    gc.set_threshold(200_000, 20, 100)
    while True:
        try:
            job = jobs.recv()
        except EOFError:
            return
        jobs.send(_result(job))


def _result(job: Job) -> bytes | Exception:
    try:
        return encode(examine(*job))
    except GlmpatchError as error:
        return error
    except Exception:  # noqa: BLE001 - the parent raises it
        return RuntimeError(traceback.format_exc())
