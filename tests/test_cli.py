"""The command line as a program: what it imports, its exit codes, its streams."""

from __future__ import annotations

import importlib
import os
import pkgutil
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from glmpatch import __version__, cli, commands
from glmpatch.assets import asset_folder
from glmpatch.errors import ExitCode, UsageError
from tests.git_support import snapshot
from tests.mpi_support import installation

REPOSITORY = Path(__file__).parent.parent
ENTRY = "from glmpatch.cli import main; main()"


def glmpatch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program; another process, real streams, the real patches."""
    return subprocess.run(
        [sys.executable, "-m", "glmpatch", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """The stand-in of upstream that the demo ships, as a plain folder."""
    return shutil.copytree(asset_folder("templates") / "demo/upstream", tmp_path / "ChatGLM-6B")


def test_the_table_of_commands_is_that_of_the_modules() -> None:
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)} - {
        "options",
        "check_options",
        "build_torch_output",
        "machine_options",
    }
    assert modules == {name.replace("-", "_") for name in cli.COMMANDS}
    for name, text in cli.COMMANDS.items():
        command = importlib.import_module(f"glmpatch.commands.{name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        assert (command.help or "").splitlines()[0] == text


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_nothing_heavy(argument: str) -> None:
    code = f"""
import sys
from glmpatch.cli import run
assert run([{argument!r}]) == 0
heavy = {{"git", "jinja2", "libcst", "msgspec", "rich", "tree_sitter"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_and_version() -> None:
    done = glmpatch("--help")
    assert done.returncode == ExitCode.DONE
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert glmpatch("--version").stdout == f"glmpatch {__version__}\n"
    assert glmpatch("apply", "-h").returncode == ExitCode.DONE


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["apply"], ["status", "a", "b"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == ExitCode.USAGE
    assert "Usage:" in capsys.readouterr().err


def raising(error: BaseException) -> Callable[..., None]:
    def main(*_arguments: object, **_options: object) -> None:
        raise error

    return main


def test_an_expected_error_is_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.cli, "main", raising(UsageError("what", hint="do this")))
    assert cli.run([]) == ExitCode.USAGE
    assert capsys.readouterr().err == "error: what\nhint: do this\n"


def test_a_folder_that_must_not_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.cli, "main", raising(PermissionError(13, "Permission denied", "/root/x")))
    assert cli.run([]) == ExitCode.ENVIRONMENT
    assert capsys.readouterr().err == "error: /root/x: Permission denied\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.cli, "main", raising(error))
    assert cli.run([]) == ExitCode.INTERRUPTED


def test_a_bug_leaves_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli.cli, "main", raising(ZeroDivisionError("here")))
    assert cli.run(["apply", "a folder"]) == ExitCode.BUG
    (file,) = tmp_path.iterdir()
    assert str(file) in capsys.readouterr().err
    text = file.read_text()
    assert "glmpatch apply 'a folder'" in text
    assert text.endswith("ZeroDivisionError: here\n")
    assert f"glmpatch {__version__}, Python " in text


def test_a_password_in_a_url_is_neither_shown_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://user:t0ken@example.org/x"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for error in (ZeroDivisionError(f"here: {url}"), UsageError(f"no {url}"), click.UsageError(f"no {url}")):
        monkeypatch.setattr(cli.cli, "main", raising(error))
        cli.run(["check", "--upstream", url, f"--upstream={url}"])
    (file,) = tmp_path.iterdir()
    text, shown = file.read_text(), capsys.readouterr().err
    assert "t0ken" not in text + shown
    assert "--upstream https://example.org/x --upstream=https://example.org/x" in text
    assert "ZeroDivisionError: here: https://example.org/x" in text
    assert shown.count("no https://example.org/x") == 2
    assert file.stat().st_mode & 0o077 == 0


def test_a_bug_where_no_file_can_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr(cli.cli, "main", raising(ZeroDivisionError("here")))
    assert cli.run([]) == ExitCode.BUG
    assert "ZeroDivisionError: here" in capsys.readouterr().err


def test_the_output_is_plain_in_a_pipe_and_home_is_not_needed(upstream: Path) -> None:
    for name in ("status", "diff", "apply", "revert", "apply"):
        done = glmpatch(name, str(upstream), HOME="/proc/none", XDG_CONFIG_HOME="/proc/none")
        assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
        assert "\x1b" not in done.stdout


def test_a_locale_that_has_no_chinese(upstream: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "POSIX"}
    for name in ("status", "diff", "patches"):
        target = [] if name == "patches" else [str(upstream)]
        assert glmpatch(name, *target, **environment).returncode == ExitCode.DONE


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_has_colours_unless_they_are_unwanted(upstream: Path, no_color: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color"}
    if no_color:
        environment["NO_COLOR"] = "1"
    process = subprocess.Popen([sys.executable, "-c", ENTRY, "status", str(upstream)], env=environment, stdout=theirs)
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    assert process.wait() == ExitCode.DONE
    assert b"to apply" in output
    assert (b"\x1b[33m" in output) is not no_color


@pytest.mark.parametrize("arguments", ["apply {}/new", "check"])
def test_a_terminal_shows_no_password(tmp_path: Path, arguments: str) -> None:
    ours, theirs = pty.openpty()
    command = [*arguments.format(tmp_path).split(), "--upstream", "https://user:t0ken@127.0.0.1:9/x"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", ENTRY, *command], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    assert process.wait() == ExitCode.ENVIRONMENT
    assert b"ing https://127.0.0.1:9/x" in output
    assert b"t0ken" not in output


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so at the end of a terminal
        return b""


@pytest.mark.parametrize("name", ["diff", "patches"])
def test_a_reader_that_has_seen_enough(upstream: Path, name: str) -> None:
    target = "" if name == "patches" else str(upstream)
    program = f'"{sys.executable}" -m glmpatch {name} {target}'
    script = f"{program} | true; {program} | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


# Two are written by click, two by rich, then one as bytes and one as JSON; the last two are errors, ours and click's.
@pytest.mark.parametrize(
    "arguments",
    ["--help", "diff --help", "patches", "status {}", "diff {}", "status {} --json", "status /nowhere", "x"],
)
def test_a_reader_that_is_gone(upstream: Path, arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "glmpatch", *arguments.format(upstream).split()],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=writing,
        stderr=writing if arguments in {"status /nowhere", "x"} else subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr or b"") == (128 + signal.SIGPIPE, b"")


def test_without_a_standard_output(upstream: Path) -> None:
    script = f'"{sys.executable}" -m glmpatch status {upstream} >&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (ExitCode.DONE, b"")


def test_a_build_whose_reader_has_seen_enough_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    root = installation("mpich").root
    program = f'"{sys.executable}" -m glmpatch build-backend --mpi mpich --mpi-root "{root}" --wheel-dir "{tmp_path}"'
    done = subprocess.run(
        ["bash", "-c", f"{program} | head -1; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    assert len(done.stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def hanging_apply(tmp_path: Path, *prefix: str, **streams: Any) -> subprocess.Popen[bytes]:
    """A clone over a transport that hangs, as one does whose server never answers; once it does."""
    started = tmp_path / "started"
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 60\n")
    ssh.chmod(0o755)
    program = [sys.executable, "-c", ENTRY, "apply", str(tmp_path / "a/b"), "--upstream", "ssh://host/x"]
    environment = {"PYTHONPATH": str(REPOSITORY), "GIT_SSH_COMMAND": str(ssh), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*prefix, *program], env={**os.environ, **environment}, **streams)
    for _ in range(500):
        if started.exists():
            break
        time.sleep(0.02)
    return process


def check_nothing_left(tmp_path: Path) -> None:
    """Nothing of the clone, and no report of a bug."""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ssh", "started"]


def test_told_to_stop_it_ends_as_at_an_interrupt(tmp_path: Path) -> None:
    process = hanging_apply(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.split()) == (ExitCode.INTERRUPTED, [b"interrupted"])
    check_nothing_left(tmp_path)


def test_a_lost_terminal_ends_it_too(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = hanging_apply(tmp_path, "setsid", "--ctty", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    assert process.wait(timeout=20) == ExitCode.INTERRUPTED
    check_nothing_left(tmp_path)


def test_a_lost_terminal_is_nothing_where_it_is_not_to_matter(tmp_path: Path) -> None:
    process = hanging_apply(tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.split()[-1]) == (ExitCode.INTERRUPTED, b"interrupted")
    check_nothing_left(tmp_path)


def test_diff_and_git_apply_agree_with_apply(tmp_path: Path, upstream: Path) -> None:
    other = shutil.copytree(upstream, tmp_path / "other")
    diff = glmpatch("diff", str(upstream)).stdout
    subprocess.run(["git", "apply", "-"], cwd=other, input=diff, text=True, check=True)
    assert glmpatch("apply", "--no-launch", str(upstream)).returncode == ExitCode.DONE
    after = {path: found for path, found in snapshot(upstream).items() if not path.startswith(".glmpatch/")}
    assert after == snapshot(other)
