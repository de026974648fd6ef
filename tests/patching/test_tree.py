from __future__ import annotations

import os
from pathlib import Path

import pytest

from glmpatch.checkout import Checkout
from glmpatch.errors import EnvironmentLacksError
from glmpatch.patching.model import Refusal
from glmpatch.patching.plan import LARGEST_FILE
from glmpatch.patching.tree import CommittedTree, WorkTree, write_files, write_own_file, writing
from tests.git_support import UPSTREAM, git, make_folder, make_repo, snapshot


def test_a_folder_lists_and_reads_its_files(root: Path) -> None:
    make_folder(root)
    (root / ".glmpatch").mkdir()
    (root / ".glmpatch/0001.json").touch()
    tree = WorkTree(root)
    assert sorted(tree.paths()) == sorted(UPSTREAM)
    assert tree.read("ptuning/main.py") == UPSTREAM["ptuning/main.py"]
    assert tree.read("ptuning/gone.py") is None


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..", "../x", "ptuning/../../x", "ptuning", "", "linked.py", "dir/main.py"]
)
def test_only_plain_files_inside_are_read(root: Path, path: str) -> None:
    make_folder(root)
    (root / "linked.py").symlink_to("api.py")
    (root / "dir").symlink_to("ptuning")
    with pytest.raises(Refusal):
        WorkTree(root).read(path)


def test_a_dangling_link_is_no_missing_file(root: Path) -> None:
    make_folder(root)
    (root / "linked.py").symlink_to("nowhere.py")
    with pytest.raises(Refusal):
        WorkTree(root).read("linked.py")


def test_holds_is_false_for_what_cannot_be_read(root: Path) -> None:
    make_folder(root)
    (root / "linked.py").symlink_to("api.py")
    tree = WorkTree(root)
    assert tree.holds("api.py", UPSTREAM["api.py"])
    assert not tree.holds("linked.py", UPSTREAM["api.py"])
    assert not tree.holds("gone.py", b"")


def test_a_file_that_cannot_be_read_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(root)

    def fail(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(Refusal) as caught:
        WorkTree(root).read("api.py")
    assert caught.value.conflict.found == "Permission denied"


def test_a_file_that_is_too_large_is_not_loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(root)
    for size in (LARGEST_FILE, LARGEST_FILE + 1):
        (root / "api.py").write_bytes(bytes(size))
        assert WorkTree(root).holds("api.py", bytes(size))
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(Refusal) as caught:
        WorkTree(root).read("api.py")
    assert caught.value.conflict.found == "a larger file"
    assert not WorkTree(root).holds("api.py", b"")


def test_in_git_only_tracked_files_count(root: Path) -> None:
    make_repo(root)
    (root / "mine.py").touch()
    tree = WorkTree(root, Checkout(root))
    assert sorted(tree.paths()) == sorted(UPSTREAM)
    with pytest.raises(Refusal) as caught:
        tree.read("mine.py")
    assert caught.value.conflict.found == "an untracked file"


def test_a_committed_tree_is_head(root: Path) -> None:
    make_repo(root)
    (root / "api.py").write_text("mine\n")
    (root / "README.md").unlink()
    (root / "mine.py").touch()
    git(root, "add", "mine.py")
    git(root, "rm", "--quiet", "--cached", "web_demo.py")
    checkout = Checkout(root)
    tree = CommittedTree(WorkTree(root, checkout), checkout, checkout.dirty())
    assert sorted(tree.paths()) == sorted(UPSTREAM)
    assert {path: tree.read(path) for path in UPSTREAM} == UPSTREAM
    assert tree.read("mine.py") is None


def test_files_are_replaced_with_their_modes(root: Path) -> None:
    make_folder(root)
    (root / "api.py").chmod(0o640)
    write_files(root, {"api.py": b"new\n", "ptuning/train.sh": b"new\n"})
    found = snapshot(root)
    assert found["api.py"] == ("-rw-r-----", b"new\n")
    assert found["ptuning/train.sh"] == ("-rwxr-xr-x", b"new\n")
    assert len(found) == len(UPSTREAM)


def test_nothing_is_replaced_if_one_cannot_be_staged(root: Path) -> None:
    before = snapshot(make_folder(root))
    with pytest.raises(EnvironmentLacksError, match=r"cannot write .*gone\.py: No such file or directory"):
        write_files(root, {"api.py": b"new\n", "gone.py": b"new\n"})
    assert snapshot(root) == before


def test_a_folder_in_the_place_of_the_staged_file_is_named(root: Path) -> None:
    make_folder(root)
    (root / ".api.py.glmpatch-new").mkdir()
    with pytest.raises(EnvironmentLacksError, match=r"api\.py"):
        write_files(root, {"web_demo.py": b"new\n", "api.py": b"new\n"})
    assert (root / "web_demo.py").read_bytes() == UPSTREAM["web_demo.py"]


def test_a_hard_link_elsewhere_keeps_its_bytes(tmp_path: Path, root: Path) -> None:
    make_folder(root)
    os.link(root / "api.py", tmp_path / "other.py")
    write_files(root, {"api.py": b"new\n"})
    assert (tmp_path / "other.py").read_bytes() == UPSTREAM["api.py"]


def test_a_file_of_our_own_comes_with_its_folder(tmp_path: Path) -> None:
    write_own_file(tmp_path / "a/b/c.json", b"{}")
    assert snapshot(tmp_path) == {"a/b/c.json": ("-rw-r--r--", b"{}")}


def test_writing_says_which_file(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentLacksError, match=r"cannot write .*file: No space left on device"),
        writing(tmp_path / "file"),
    ):
        raise OSError(28, "No space left on device")
