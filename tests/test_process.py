from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from glmpatch.errors import EnvironmentLacksError
from glmpatch.process import CommandFailedError, SilentError, find_program, stream


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A child of a child is reaped by init, which may take its time.
        if "\nState:\tZ" in Path("/proc", str(pid), "status").read_text():
            return True
        time.sleep(0.01)
    return False


def test_lines_come_as_they_are_printed() -> None:
    code = (
        "import sys; sys.stdout.write('1%\\r2%\\rdone\\n'); sys.stderr.write('\u4e2d\\xff');"
        "sys.stdout.buffer.write(b'\\xff')"
    )
    lines = list(stream(python(code), env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}))
    assert lines[:3] == ["1%", "2%", "done"]
    assert "\u4e2d\u00ff" in lines[3]
    assert "\ufffd" in lines[3]


def test_nothing_is_read_from_our_input_and_the_folder_is_the_given_one(tmp_path: Path) -> None:
    assert list(stream(python("import os, sys; print(sys.stdin.read(), os.getcwd(), sep='')"), cwd=tmp_path)) == [
        str(tmp_path)
    ]


def test_a_failure_shows_command_code_and_end() -> None:
    with pytest.raises(CommandFailedError) as caught:
        list(stream(python("print('\\n'.join(str(n) for n in range(100))); raise SystemExit(7)")))
    assert caught.value.returncode == 7
    assert caught.value.tail.splitlines()[0] == "60"
    assert "exit code 7" in caught.value.message
    assert caught.value.message.endswith("    99")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(EnvironmentLacksError, match="no-such-program is not installed"):
        list(stream(["no-such-program"]))
    assert find_program("sh").endswith("/sh")


def test_closing_stops_the_program_and_its_children() -> None:
    code = (
        "import os, subprocess, time; child = subprocess.Popen(['sleep', '60']);"
        "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
    )
    lines = stream(python(code))
    pids = [int(pid) for pid in next(lines).split()]
    lines.close()
    assert all(gone(pid) for pid in pids)


def test_a_program_that_does_not_want_to_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glmpatch.process._GRACE_SECONDS", 0.1)
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    lines = stream(python(code))
    pid = int(next(lines))
    with pytest.raises(KeyboardInterrupt):
        lines.throw(KeyboardInterrupt())
    assert gone(pid)


def test_a_silent_program_is_stopped_with_its_children() -> None:
    lines = stream(["sh", "-c", "sleep 60 & echo $$ $!; wait"], silence=1)
    pids = [int(pid) for pid in next(lines).split()]
    with pytest.raises(SilentError, match="nothing came for 1 seconds"):
        next(lines)
    assert all(gone(pid) for pid in pids)


def test_a_slow_program_that_speaks_is_left_alone() -> None:
    """What counts is the time between two words, not the whole, nor the time that we take ourselves."""
    lines = stream(["sh", "-c", "for n in 1 2 3 4 5 6 7; do printf $n; sleep 0.1; done; printf '\\r8'"], silence=0.6)
    assert list(lines) == ["1234567", "8"]
    lines = stream(["sh", "-c", "echo 1; sleep 0.1; echo 2"], silence=0.3)
    assert next(lines) == "1"
    time.sleep(0.4)
    assert list(lines) == ["2"]
