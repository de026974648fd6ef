from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from glmpatch.building import state
from glmpatch.building.state import BuildFolder, Record, is_misleading
from glmpatch.errors import EnvironmentLacksError, ExitCode, UsageError
from tests.git_support import make_folder, snapshot

_HOLD = """\
import sys
from pathlib import Path
from glmpatch.building.state import BuildFolder
with BuildFolder(Path(sys.argv[1])).hold():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> BuildFolder:
    return BuildFolder(tmp_path / "build")


def test_two_at_once(folder: BuildFolder) -> None:
    command = [sys.executable, "-c", _HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        begin = time.monotonic()
        with pytest.raises(EnvironmentLacksError, match=f"another build is at work in {folder.path}") as caught:
            folder.hold().__enter__()
        assert time.monotonic() - begin < 1
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        first.kill()
    with folder.hold():
        pass


@contextmanager
def orphan(environment: Mapping[str, str], code: str = "sleep 60") -> Iterator[subprocess.Popen[bytes]]:
    """A program that was left running. It is a child of ours all the same, so that we see how it ends."""
    command = ["sh", "-c", f"{code} & echo running; wait"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            else:
                process.wait(10)


def test_what_a_killed_build_has_left_is_ended(folder: BuildFolder, tmp_path: Path) -> None:
    others = BuildFolder(tmp_path / "build2").environment(os.environ)
    with orphan(folder.environment(os.environ)) as mine, orphan(others) as other:
        with folder.hold():
            assert mine.wait(0.5) == -signal.SIGTERM
            assert not list(folder._orphans())
        assert other.poll() is None


def test_what_does_not_listen_is_killed(folder: BuildFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_GRACE_SECONDS", 0.2)
    with orphan(folder.environment(os.environ), "trap '' TERM; sleep 60") as mine, folder.hold():
        assert mine.wait(0.5) == -signal.SIGKILL


def test_the_folder_under_another_name(folder: BuildFolder, tmp_path: Path) -> None:
    folder.path.mkdir()
    (tmp_path / "link").symlink_to(folder.path)
    with orphan(BuildFolder(tmp_path / "link").environment(os.environ)) as mine, folder.hold():
        assert mine.wait(0.5) == -signal.SIGTERM


@pytest.mark.parametrize("file", ["notes.txt", "source/main.py", "state/terraform.tfstate", ".hidden"])
def test_a_folder_of_something_else_is_left_alone(folder: BuildFolder, file: str) -> None:
    make_folder(folder.path, {file: b"mine"})
    before = snapshot(folder.path)
    with pytest.raises(UsageError, match="is not empty, and no folder of a build"):
        folder.hold().__enter__()
    assert snapshot(folder.path) == before


def test_an_empty_folder_and_one_that_was_hardly_begun_are_taken(folder: BuildFolder) -> None:
    (folder.path / "state").mkdir(parents=True)
    with folder.hold():
        (folder.path / "source").mkdir()
        (folder.path / "source/file").touch()
    with folder.hold():
        folder.require_ours()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/glmpatch", "/sys/glmpatch"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    folder = BuildFolder(tmp_path / place)
    folder.require_ours()
    with pytest.raises(EnvironmentLacksError) as caught:
        folder.hold().__enter__()
    assert caught.value.hint == "name another folder with --work-dir"


def test_a_folder_that_cannot_be_read(folder: BuildFolder) -> None:
    folder.path.mkdir()
    folder.path.chmod(0)
    # Root may do everything.
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        folder.require_ours()
        with pytest.raises(EnvironmentLacksError, match="Permission denied"):
            folder.hold().__enter__()
    finally:
        os.seteuid(user)
        folder.path.chmod(0o755)


def test_what_fails_in_the_build_itself_is_handed_on(folder: BuildFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.hold():
        raise ZeroDivisionError
    with pytest.raises(UsageError, match="this"), folder.hold():
        raise UsageError("this")


def test_what_is_behind_a_step_is_opened_again(folder: BuildFolder) -> None:
    needs = {"one": (), "two": ("one",), "three": ("two",), "four": ("one", "three"), "other": ()}
    with folder.hold():
        for step, needed in needs.items():
            folder.write(step, Record("digest", done=True, seconds=1.5, needs=needed))
        folder.reopen_behind("two")
        for step, needed in needs.items():
            done = step not in {"three", "four"}
            assert folder.read(step) == Record("digest", done=done, seconds=1.5, needs=needed)


def test_records(folder: BuildFolder) -> None:
    done = Record("digest", done=True, seconds=1.5)
    with folder.hold():
        assert folder.read("one") is None
        folder.write("one", done)
        folder.write("two", Record("other", done=True))
        folder.write("two", Record("other", done=False))
        folder.log("one").touch()
        assert [folder.read("one"), folder.read("two")] == [done, Record("other", done=False)]
        folder.forget()
        assert [folder.read("one"), folder.read("two")] == [None, None]
    assert sorted(path.name for path in folder.path.rglob("*") if path.is_file()) == ["lock"]


@pytest.mark.parametrize(
    "name",
    [
        *("USE_CUDA", "BUILD_TEST", "CMAKE_GENERATOR", "PYTORCH_BUILD_VERSION", "PYTHONPATH", "DESTDIR", "PIP_TARGET"),
        *("GIT_DIR", "SLURM_JOB_ID", "PBS_NODEFILE"),
    ],
)
def test_misleading(name: str, folder: BuildFolder) -> None:
    assert is_misleading(name)
    assert name not in folder.environment({name: "1"})


@pytest.mark.parametrize(
    "name", ["CXX", "CFLAGS", "HOME", "PATH", "https_proxy", "REUSE_IT", "use_cuda", "PIP_INDEX_URL", "GIT_SSL_CAINFO"]
)
def test_not_misleading(name: str, folder: BuildFolder) -> None:
    assert not is_misleading(name)
    assert folder.environment({name: "1"})[name] == "1"


def test_programs_speak_english_and_ask_nothing(folder: BuildFolder) -> None:
    """The failures that we know are in English."""
    environment = folder.environment({**os.environ, "LC_ALL": "zh_CN.UTF-8", "LANGUAGE": "zh_CN:zh"})
    assert environment["LC_ALL"] == "C.UTF-8"
    assert environment["LANGUAGE"] == ""
    assert environment["GIT_TERMINAL_PROMPT"] == "0"


def test_without_locks_what_is_at_work_is_spared(folder: BuildFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with orphan(folder.environment(os.environ)) as process, folder.hold():
        assert process.poll() is None


def test_a_link_is_not_followed(folder: BuildFolder, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    folder.path.mkdir()
    (folder.path / "logs").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="logs is a link"), folder.hold():
        pass
    assert list((tmp_path / "theirs").iterdir()) == []
