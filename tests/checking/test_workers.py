"""Files examined by several processes, which end when they are told to, and with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from glmpatch.checking.cache import encode
from glmpatch.checking.examine import examine
from glmpatch.checking.workers import Job, examine_all
from glmpatch.cli import main
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.patching.model import Rewrite, Transform
from glmpatch.patching.transforms import TRANSFORMS
from tests.engine_support import Swap
from tests.git_support import make_folder

TWO_CPUS = {0, 1}
PATCH = """\
id = "slow"
title = "Take a minute"
why = "Some files do."
drop_when = "never"
[[edits]]
path = "ptuning/slow*.py"
transform = "slow"
params = {{ folder = "{folder}" }}
"""


class Slow(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Leaves a file with the name of its process, and takes longer than any test waits."""

    name: ClassVar[str] = "slow"
    folder: str

    def rewrite(self, data: bytes) -> Rewrite:  # noqa: ARG002 - the same for every file
        Path(self.folder, str(os.getpid())).touch()
        time.sleep(60)
        return Rewrite()


class Fatal(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ends the process, as the kernel does when memory runs out, or has a bug."""

    name: ClassVar[str] = "fatal"

    def rewrite(self, data: bytes) -> Rewrite:
        if data == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: TWO_CPUS)


def jobs(**odd: Job) -> list[Job]:
    edits = (Swap(old="old", new="new"),)
    found = {f"{number}.py": (f"{number}.py", b"old%d" % number, edits) for number in range(24)}
    return list((found | {"13.py": odd.get("at_13", found["13.py"])}).values())


def check_slowly() -> None:
    """`glmpatch check` with a patch that takes its time."""
    TRANSFORMS["slow"] = Slow
    os.sched_getaffinity = lambda _: TWO_CPUS
    main()


@pytest.fixture
def slow_check(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A check that has been started in a session of its own, and its workers at work."""
    make_folder(tmp_path / "tree", {f"ptuning/slow{number}.py": b"%d" % number for number in range(24)})
    make_folder(tmp_path / "tree", {"ptuning/main.py": b"", "ptuning/train.sh": b"", "ptuning/arguments.py": b""})
    make_folder(tmp_path / "patches", {"90-slow.toml": PATCH.format(folder=tmp_path / "at-work").encode()})
    (tmp_path / "at-work").mkdir()
    code = "from tests.checking.test_workers import check_slowly; check_slowly()"
    options = ["--tree", f"{tmp_path}/tree", "--patches", f"{tmp_path}/patches", "--only", "slow", "--no-cache"]
    command = [sys.executable, "-c", code, "check", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            while len(workers := list((tmp_path / "at-work").iterdir())) < len(TWO_CPUS):
                assert process.poll() is None
                time.sleep(0.02)
            yield process, [int(worker.name) for worker in workers]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_check_that_is_interrupted_stops_at_once(slow_check: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    process, workers = slow_check
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert said.split() == [b"interrupted"]
    assert not any(map(is_running, workers))


def test_check_that_is_killed_leaves_no_process_behind(slow_check: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    process, workers = slow_check
    process.kill()
    patience = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_several_processes_find_what_one_does() -> None:
    assert dict(examine_all(jobs())) == {place: encode(examine(*job)) for place, job in enumerate(jobs())}


def test_file_that_a_process_was_killed_at_is_named() -> None:
    with pytest.raises(
        EnvironmentLacksError, match=r"killed while it tried the patches on big\.py \(4 bytes\)"
    ) as caught:
        list(examine_all(jobs(at_13=("big.py", b"kill", (Fatal(),)))))
    assert "memory" in caught.value.hint


def test_bug_in_another_process_is_told_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"in rewrite[^$]*ZeroDivisionError"):
        list(examine_all(jobs(at_13=("a.py", b"bug", (Fatal(),)))))
