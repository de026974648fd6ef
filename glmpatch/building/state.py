"""The folder that a build lives in: what is done, the logs, and who works in it."""

from __future__ import annotations

import fnmatch
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.locking import locked
from glmpatch.mpi.flavour import leads_elsewhere

# What a build's programs have in their environment, to be known by, even when their parent is gone.
_MARK = "GLMPATCH_BUILD"
# Variables of the user's that change what comes out of a build, or where git works, and are no option of ours.
MISLEADING = (
    *("USE_*", "BUILD_*", "CMAKE_*", "PYTORCH_*", "PYTHONPATH", "PYTHONHOME", "DESTDIR"),
    *("PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER"),
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
)
_GRACE_SECONDS = 5


def is_misleading(name: str) -> bool:
    """Whether a variable of the user's would lead a build, or the ranks of its proof, astray."""
    return leads_elsewhere(name) or any(fnmatch.fnmatchcase(name, pattern) for pattern in MISLEADING)


class Record(msgspec.Struct, frozen=True):
    """What is known of a step.

    Attributes:
        digest: The hash of its inputs when it was begun; empty while what is stale is taken away.
        done: Whether it came to its end.
        seconds: How long it took.
        needs: The steps whose outcome it worked on.
    """

    digest: str
    done: bool
    seconds: float = 0.0
    needs: tuple[str, ...] = ()


class BuildFolder:
    """The folder of one build.

    Args:
        path: It; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = path / "state"
        self._logs = path / "logs"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder, keep other builds out of it, and end what a killed one has left running.

        Raises:
            UsageError: The folder holds something else.
            EnvironmentLacksError: Another build is at work in it, or it cannot be written to.
        """
        with ExitStack() as held:
            try:
                self.require_ours()
                for folder in (self._state, self._logs):
                    folder.mkdir(parents=True, exist_ok=True)
                alone = held.enter_context(locked(self._state / "lock", self._busy))
            except OSError as error:
                raise EnvironmentLacksError(
                    f"{error.filename or self.path}: {error.strerror}",
                    hint="name another folder with --work-dir",
                ) from error
            # Without a lock, they may be of a build that is alive.
            end_orphans = self._end_orphans if alone else lambda: None
            end_orphans()
            try:
                yield
            finally:
                # Compilers are in groups of their own, and outlive a ninja that has no time to end them.
                end_orphans()

    def require_idle(self) -> None:
        """See that no build is at work in it. One can still begin behind this: only `hold` keeps it out.

        Raises:
            EnvironmentLacksError: One is.
        """
        with suppress(OSError), locked(self._state / "lock", self._busy, shared=True):
            pass

    def require_ours(self) -> None:
        """See that it is a folder of a build, or empty, or not there.

        Raises:
            UsageError: It holds something else.
        """
        # What cannot be read cannot be written to either, and that is told where it is tried.
        with suppress(OSError):
            for link in filter(Path.is_symlink, (self._state, self._logs)):
                raise UsageError(f"{link} is a link", hint="name another folder with --work-dir")
            # Not just `state`: that is a name which others have, too.
            ours = (self._state / "lock").exists()
            if not ours and any(not path.is_dir() for path in self.path.rglob("*")):
                raise UsageError(
                    f"{self.path} is not empty, and no folder of a build", hint="name another one with --work-dir"
                )

    def read(self, step: str) -> Record | None:
        """What is known of a step. A damaged record is none: the step is done again."""
        with suppress(OSError, UnicodeDecodeError, msgspec.DecodeError):
            return msgspec.json.decode(self._record(step).read_bytes(), type=Record)
        return None

    def write(self, step: str, record: Record) -> None:
        """Note how it stands with a step: whole or not at all, and still there when the power fails."""
        partial = self._record(step).with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._record(step))

    def reopen_behind(self, step: str) -> None:
        """Note that all steps behind one are to be run again. What they were done with is still known."""
        for file in sorted(self._state.glob("*.json")):
            record = self.read(file.stem)
            if record and step in record.needs:
                # Those behind it first: when this ends early it is found, and gone through, once more.
                self.reopen_behind(file.stem)
                self.write(file.stem, msgspec.structs.replace(record, done=False))

    def forget(self) -> None:
        """Nothing is done any more."""
        for file in (*self._state.glob("*.json"), *self._logs.glob("*.log")):
            file.unlink()

    def log(self, step: str) -> Path:
        """The file with what a step printed when it was last run."""
        return self._logs / f"{step}.log"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of the build's programs: `base` without what would lead them astray."""
        kept = {name: value for name, value in base.items() if not is_misleading(name)}
        # In English, which the table of failures is in.
        return {**kept, "LC_ALL": "C.UTF-8", "LANGUAGE": "", "GIT_TERMINAL_PROMPT": "0", _MARK: self._mark}

    @property
    def _mark(self) -> str:
        """The folder, under whatever name it is known."""
        return str(self.path.resolve())

    def _record(self, step: str) -> Path:
        return self._state / f"{step}.json"

    def _busy(self) -> None:
        raise EnvironmentLacksError(
            f"another build is at work in {self.path}",
            hint="wait for it (--status tells how far it is), or name another folder with --work-dir",
        )

    def _end_orphans(self) -> None:
        """End the programs of a build that was killed itself: they would write beside the new ones."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            orphans = list(self._orphans())
            for process in orphans:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, sign)
            end = time.monotonic() + _GRACE_SECONDS
            while orphans and time.monotonic() < end:
                time.sleep(0.05)
                orphans = list(self._orphans())

    def _orphans(self) -> Iterator[int]:
        mark = os.fsencode(f"{_MARK}={self._mark}")
        for folder in Path("/proc").glob("[0-9]*"):
            if int(folder.name) != os.getpid():
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)
