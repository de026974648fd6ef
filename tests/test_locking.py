from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from glmpatch.locking import locked


def test_one_holds_it_and_the_next_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, file = fcntl.flock, tmp_path / "lock"
    told: list[str] = []

    def stop_waiting(opened: int, kind: int) -> None:
        if not kind & fcntl.LOCK_NB:
            raise TimeoutError
        flock(opened, kind)

    monkeypatch.setattr("fcntl.flock", stop_waiting)
    for first, second, waits in [(False, False, True), (False, True, True), (True, False, True), (True, True, False)]:
        told.clear()
        file.touch()
        with locked(file, lambda: pytest.fail("nobody holds it"), shared=first):
            try:
                with locked(file, lambda: told.append("wait"), shared=second):
                    assert not waits
            except TimeoutError:
                assert waits
        assert told == ["wait"] * waits


def test_a_shared_lock_needs_no_right_to_write(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with pytest.raises(FileNotFoundError), locked(file, lambda: None, shared=True):
        pytest.fail("there is no such file")
    file.touch()
    with locked(file, lambda: None, shared=True):
        opened = {str(fd.readlink()): fd.name for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
        flags = Path("/proc/self/fdinfo", opened[str(file)]).read_text().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "lock", lambda: pytest.fail("nobody holds it")) as alone:
        assert not alone
