from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glmpatch.checkout import Checkout, NewCommit, merge, open_checkout
from glmpatch.errors import EnvironmentLacksError, TreeError
from glmpatch.git_commands import GitFailedError
from tests.git_support import UPSTREAM, git, make_folder, status


def test_a_plain_folder_is_no_checkout(tmp_path: Path, source: Path) -> None:
    assert open_checkout(make_folder(source / "inner")) is None
    assert open_checkout(tmp_path) is None
    checkout = open_checkout(source)
    assert checkout is not None
    assert checkout.head == git(source, "rev-parse", "HEAD")


def test_reading(source: Path) -> None:
    checkout = Checkout(source)
    assert sorted(checkout.tracked()) == sorted(UPSTREAM)
    assert sorted(checkout.committed("HEAD")) == sorted(UPSTREAM)
    assert checkout.read("HEAD~1", "README.md") == UPSTREAM["README.md"]
    assert checkout.read("HEAD", "gone") is None
    assert checkout.changed_paths("HEAD") == ["README.md"]
    assert checkout.changed_paths("HEAD~1") == sorted(UPSTREAM)
    assert checkout.dirty() == set()


def test_recording_moves_nothing(source: Path) -> None:
    checkout = Checkout(source)
    first, second = checkout.record(
        [NewCommit("one\n", {"api.py": b"1\n"}), NewCommit("two\n", {"api.py": b"2\n", "README.md": b"2"})]
    )
    assert git(source, "rev-parse", "HEAD") == checkout.head
    assert git(source, "rev-parse", f"{second}^", f"{first}^").split() == [first, checkout.head]
    assert checkout.read(second, "README.md") == b"2"
    assert checkout.read(first, "api.py") == b"1\n"
    assert (status(source), git(source, "for-each-ref", "refs/worktree")) == ([], "")


def test_trailers(source: Path) -> None:
    git(source, "commit", "--quiet", "--allow-empty", "--message", "a\n\nOur-Word: x\nOur-Word: y")
    git(source, "commit", "--quiet", "--allow-empty", "--message", "b\n\nOur-Word: quoted in the text\n\nthe end")
    git(source, "commit", "--quiet", "--allow-empty", "--message", "c\n\nOur-Word: z")
    found = Checkout(source).trailed("Our-Word")
    assert [commit.values for commit in found] == [("z",), ("x", "y")]


def test_an_error_shows_the_last_words_of_git(source: Path) -> None:
    with pytest.raises(GitFailedError, match=r"^fatal: "):
        Checkout(source).committed("nowhere")
    shutil.rmtree(source / ".git/refs/heads")
    (source / ".git/HEAD").write_text("ref: refs/heads/gone\n")
    with pytest.raises((TreeError, EnvironmentLacksError)):
        Checkout(source)


@pytest.mark.parametrize("current", [b"a\nb\nc\nd\nmine\n", b"a\r\nb\nc\nd\nmine\n"])
def test_merging(current: bytes) -> None:
    merged = merge(current, b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\ne\n")
    assert merged == (None if b"\r" in current else b"A\nb\nc\nd\nmine\n")
    assert merge(b"x\0", b"y\0", b"z\0") is None
