"""What the jobs share. A job runs on every rank, notes what was wrong, and tells it when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

BYTES_OF_CHUNK = 512 * 1024  # large messages go in chunks of so many bytes
TIMEOUT = timedelta(seconds=60)


class Cases:
    """Counts what was checked. A wrong value leaves the ranks in step, so the job goes on and tells all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.failures: list[str] = []

    def true(self, name: str, holds: bool, otherwise: object = "") -> None:
        self.count += 1
        if not holds:
            self.failures.append(f"{name}: {otherwise}")

    def same(self, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """The same dtype, shape and numbers; any NaN is as good as another, and so is any zero."""
        try:
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            problem = None
        except AssertionError as error:
            problem = " ".join(str(error).split())
        self.true(name, problem is None, problem)

    def same_bytes(self, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """For the dtypes that torch can move and nothing else."""
        wrong = (bytes_of(found) != bytes_of(expected)).nonzero().flatten().tolist()
        self.true(name, not wrong, f"{len(wrong)} bytes differ, the first at {wrong[:1]}")

    @contextmanager
    def refused(self, name: str, *parts: str, by: type[Exception] = RuntimeError) -> Iterator[None]:
        """The block must raise `by`, with each of `parts` in its message."""
        try:
            yield
        except by as error:
            missing = [part for part in parts if part not in str(error)]
            self.true(name, not missing, f"{missing} not in: {error}")
        except Exception as error:  # noqa: BLE001 - any other kind is the failure
            self.true(name, False, f"{type(error).__name__} in place of {by.__name__}: {error}")
        else:
            self.true(name, False, f"no {by.__name__}")

    def report(self, title: str) -> None:
        """Print what was covered, and end with an error if anything was wrong."""
        if self.failures:
            shown = "\n".join(f"  {failure[:500]}" for failure in self.failures[:40])
            sys.exit(f"{title}: {len(self.failures)} of {self.count} cases failed:\n{shown}")
        say(f"{title}: {self.count} cases")


def say(text: object) -> None:
    print(text, flush=True)  # noqa: T201 - a job has no other way to tell


@contextmanager
def job(title: str, timeout: timedelta = TIMEOUT) -> Iterator[Cases]:
    """All ranks in the default group, and a report at the end."""
    dist.init_process_group("mpi", timeout=timeout)
    cases = Cases()
    yield cases
    dist.destroy_process_group()
    cases.report(title)


def default_group() -> dist.ProcessGroup:
    return dist.distributed_c10d._get_default_group()


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)


def all_dtypes() -> list[torch.dtype]:
    """Those of tensors on the CPU that torch.distributed takes: it has no collective for the quantized ones."""
    found = {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
    return sorted((dtype for dtype in found if not str(dtype).startswith(("torch.q"))), key=str)


def generator(*seed: object) -> torch.Generator:
    """The same numbers on every rank, so that each can compute what the others hold."""
    made = torch.Generator()
    made.manual_seed(int.from_bytes("/".join(map(str, seed)).encode()[-6:], "little"))
    return made


def random_bytes(dtype: torch.dtype, size: int, *seed: object) -> torch.Tensor:
    """A tensor of any dtype, with any bytes that it may have."""
    width = torch.empty(0, dtype=dtype).element_size()
    top = 2 if dtype == torch.bool else 256
    return torch.randint(top, (size * width,), dtype=torch.uint8, generator=generator(*seed)).view(dtype)
