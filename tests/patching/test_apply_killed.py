"""A kill -9 at every write point, and then the same command again: it must end as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import git as gitpython
import pytest

from glmpatch.patching.apply import apply, revert
from glmpatch.patching.series import Series
from tests.engine_support import BACKEND, DTYPE, SERIES
from tests.git_support import git, make_folder, make_repo, snapshot, status

Step = Callable[[Path], object]

# All that writes: in the tree, in the journal, and through git. The point behind one is the point before the next.
WRITES: tuple[tuple[Any, str], ...] = (
    (gitpython.Git, "execute"),
    (os, "fchmod"),
    (os, "open"),
    (os, "rmdir"),
    (os, "unlink"),
    (Path, "mkdir"),
    (Path, "replace"),
    (Path, "unlink"),
)


def kill_at(point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process kill itself at the `point`-th point that it passes."""
    passed = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for owner, name in WRITES:
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))


def is_killed(act: Step, root: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run `act` in a child that is killed at `point`; False if it ended before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kill_at(point, monkeypatch)
            act(root)
            code = 0
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


def fingerprint(root: Path) -> dict[str, object]:
    """All that a second run must make the same; of commits, what does not tell the time."""
    found: dict[str, object] = {"files": snapshot(root)}
    if (root / ".git").exists():
        found["tree"] = git(root, "rev-parse", "HEAD^{tree}")
        found["messages"] = [
            line for line in git(root, "log", "--format=%B").splitlines() if not line.startswith("Glmpatch-Reverts")
        ]
        found["status"] = status(root)
        found["refs"] = git(root, "for-each-ref", "--format=%(refname)")
        found["journal"] = snapshot(root / ".git/glmpatch")
    return found


uncommitted = partial(apply, series=SERIES, commit=False)
committed = partial(apply, series=SERIES)


def two_layers(root: Path) -> None:
    apply(root, Series((BACKEND,)), commit=False)
    apply(root, Series((DTYPE,)), commit=False)


def commits_then_a_layer(root: Path) -> None:
    apply(root, Series((BACKEND,)))
    apply(root, Series((DTYPE,)), commit=False)


def everything(root: Path) -> dict[str, bytes | str]:
    """The bytes of all files, those of git as well; of its index, which holds times, what counts."""
    found: dict[str, bytes | str] = {
        file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }
    if found.pop(".git/index", None):
        found["index"] = git(root, "ls-files", "--stage")
    return found


def nothing(_root: Path) -> None:
    """No step before."""


@pytest.mark.parametrize(
    ("make", "before", "act"),
    [
        pytest.param(make_folder, nothing, committed, id="apply to a folder"),
        pytest.param(make_folder, uncommitted, revert, id="revert a folder"),
        pytest.param(make_folder, two_layers, revert, id="revert two layers of a folder"),
        pytest.param(make_repo, nothing, committed, id="apply with commits"),
        pytest.param(make_repo, nothing, uncommitted, id="apply without commits"),
        pytest.param(make_repo, two_layers, committed, id="apply with commits what is there without"),
        pytest.param(make_repo, committed, revert, id="revert commits"),
        pytest.param(make_repo, two_layers, revert, id="revert what has no commit"),
        pytest.param(make_repo, commits_then_a_layer, revert, id="revert both"),
    ],
)
def test_killed_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], before: Step, act: Step
) -> None:
    # Commits with a time of their own would be others each second.
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1700000000 +0000")
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000)
    start = make(tmp_path / "start")
    before(start)
    root = tmp_path / "root"
    shutil.copytree(start, root, symlinks=True)
    act(root)
    expected = fingerprint(root)
    points = 0
    left: dict[str, bytes | str] = {}
    while True:
        shutil.rmtree(root)
        shutil.copytree(start, root, symlinks=True)
        points += 1
        if not is_killed(act, root, points, monkeypatch):
            break
        # Most points lie between two that only read: one second run is enough for all that left the same.
        last, left = left, everything(root)
        if left == last:
            continue
        act(root)
        assert fingerprint(root) == expected, f"killed at point {points}"
    assert points > 5
    assert fingerprint(root) == expected


@pytest.mark.parametrize("point", range(1, 16))
def test_a_killed_apply_can_be_reverted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    root = make_folder(tmp_path / "root")
    before = snapshot(root)
    is_killed(committed, root, point, monkeypatch)
    revert(root)
    leftover = {path for path in snapshot(root) if path.endswith(".glmpatch-new")}
    assert {path: found for path, found in snapshot(root).items() if path not in leftover} == before
    committed(root)
    assert not [path for path in snapshot(root) if path.endswith(".glmpatch-new")]
