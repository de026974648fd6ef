"""Locks between processes."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, on_wait: Callable[[], None], *, shared: bool = False) -> Iterator[bool]:
    """Hold a lock until the end of the block, or of the process. Yields whether there is one: not every disk has locks.

    Args:
        file: The file that stands for what is locked. It is made, and stays; a shared lock needs one that is there.
        on_wait: Called once if somebody else holds the lock, before waiting for them.
        shared: Keep out only those that do not share. This needs no right to write.

    Raises:
        OSError: The file cannot be made or opened.
    """
    kind, mode = (fcntl.LOCK_SH, "r") if shared else (fcntl.LOCK_EX, "a")
    with file.open(mode) as opened:
        held = True
        try:
            fcntl.flock(opened, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(opened, kind)
        except OSError:
            # A file system without locks, as those of clusters can be.
            held = False
        yield held
