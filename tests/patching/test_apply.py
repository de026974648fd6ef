"""Applying to a plain folder, and what a plain folder and a git working tree have in common."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.errors import EnvironmentLacksError, ExitCode, TreeError, UsageError
from glmpatch.patching.apply import apply, require_upstream, revert, survey
from glmpatch.patching.model import Conflict, Edit
from glmpatch.patching.plan import State
from glmpatch.patching.series import Series, UpstreamPin
from glmpatch.patching.tree import write_files
from tests.engine_support import BACKEND, CHANGED, DTYPE, SERIES, STUBBORN, Swap, patch
from tests.git_support import UPSTREAM, git, make_folder, make_repo, snapshot, status

JOURNAL_FILE = ".glmpatch/0001.json"


def upstream_files(root: Path) -> dict[str, tuple[str, bytes]]:
    return {path: found for path, found in snapshot(root).items() if not path.startswith(".glmpatch/")}


def test_a_plain_folder_is_patched_and_reverted(root: Path) -> None:
    before = snapshot(make_folder(root))
    applied = apply(root, SERIES)
    assert sorted(applied.written) == CHANGED
    assert applied.commits == {}
    after = upstream_files(root)
    assert [path for path in before if before[path] != after[path]] == CHANGED
    assert b"gloo" in after["ptuning/main.py"][1]
    assert b"bfloat16" in after["ptuning/main.py"][1]
    assert after["ptuning/train.sh"][0] == "-rwxr-xr-x"
    reverted = revert(root)
    assert sorted(reverted.written) == CHANGED
    assert (reverted.commit, reverted.patches) == (None, ())
    assert snapshot(root) == before


def test_a_second_run_changes_nothing(root: Path) -> None:
    make_folder(root)
    apply(root, SERIES)
    before = snapshot(root)
    applied = apply(root, SERIES)
    assert (applied.written, applied.plan.done) == ((), True)
    assert snapshot(root) == before


def test_revert_without_apply_does_nothing(root: Path) -> None:
    before = snapshot(make_folder(root))
    assert revert(root).written == ()
    assert snapshot(root) == before


@pytest.mark.parametrize("make", [make_folder, make_repo])
@pytest.mark.parametrize("commit", [True, False])
def test_one_conflict_and_nothing_is_written(root: Path, make: type, commit: bool) -> None:
    before = snapshot(make(root))
    applied = apply(root, STUBBORN, commit=commit)
    assert [result.state for result in applied.plan.patches] == [State.PENDING, State.CONFLICT, State.PENDING]
    assert (applied.written, applied.commits) == ((), {})
    assert snapshot(root) == before


def test_a_folder_inside_somebodys_repository_is_a_plain_folder(tmp_path: Path) -> None:
    make_repo(tmp_path / "outer", {"mine.txt": b"mine\n"})
    root = make_folder(tmp_path / "outer" / "third_party")
    apply(root, SERIES)
    assert git(tmp_path / "outer", "log", "--format=%s") == "upstream"
    revert(root)
    assert {entry[:2] for entry in status(tmp_path / "outer")} == {"??"}
    assert snapshot(root) == snapshot(make_folder(tmp_path / "fresh"))


def test_layers_are_taken_back_in_turn(root: Path) -> None:
    before = snapshot(make_folder(root))
    apply(root, Series((BACKEND,)))
    apply(root, Series((DTYPE,)))
    revert(root)
    assert snapshot(root) == before


def test_revert_keeps_what_the_user_changed_elsewhere_in_the_file(root: Path) -> None:
    make_folder(root)
    apply(root, SERIES)
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes() + b"\n\nmine()\n")
    revert(root)
    assert main.read_bytes() == UPSTREAM["ptuning/main.py"] + b"\n\nmine()\n"
    assert not (root / ".glmpatch").exists()


@pytest.mark.parametrize("make", [make_folder, make_repo])
def test_revert_refuses_where_the_user_changed_the_same_lines(root: Path, make: type) -> None:
    make(root)
    apply(root, SERIES, commit=False)
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes().replace(b"gloo", b"mine"))
    (root / "web_demo.py").unlink()
    before = snapshot(root)
    with pytest.raises(TreeError, match=r"ptuning/main\.py, web_demo\.py"):
        revert(root)
    assert snapshot(root) == before


def test_a_pin_that_the_user_set_comes_back(root: Path) -> None:
    """Apply, another value by hand, apply again: the layer below is no reason to lose the user's own value."""
    make_folder(root)
    pins = Series((patch("pins", Edit("requirements.txt", Swap(old="==4.2", new="==4.28.0 #"))),))
    apply(root, pins)
    (root / "requirements.txt").write_text("transformers==4.21\n")
    apply(root, pins)
    assert len(list((root / ".glmpatch").iterdir())) == 2
    with pytest.raises(TreeError, match=r"requirements\.txt"):
        revert(root)


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("make", [make_folder, make_repo])
def test_a_link_in_the_place_of_a_file_is_a_conflict(tmp_path: Path, root: Path, make: type, commit: bool) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("init('nccl'); half()\n")
    files = {path: data for path, data in UPSTREAM.items() if path != "web_demo.py"}
    make_folder(root, files)
    (root / "web_demo.py").symlink_to(outside)
    make(root, files)
    applied = apply(root, SERIES, commit=commit)
    (conflict,) = applied.plan.conflicts
    assert conflict.path == "web_demo.py"
    assert isinstance(conflict.outcome, Conflict)
    assert conflict.outcome.found == "a symbolic link"
    assert outside.read_text() == "init('nccl'); half()\n"


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_the_place_of_a_folder_is_a_conflict(tmp_path: Path, root: Path, inside: bool) -> None:
    make_folder(root)
    moved = (root if inside else tmp_path) / "moved"
    (root / "ptuning").rename(moved)
    (root / "ptuning").symlink_to(moved)
    applied = apply(root, SERIES)
    assert {edit.path for edit in applied.plan.conflicts} == {"ptuning/main.py", "ptuning/train.sh"}
    assert (moved / "main.py").read_bytes() == UPSTREAM["ptuning/main.py"]


def test_the_folder_itself_may_be_named_through_a_link(tmp_path: Path, root: Path) -> None:
    before = snapshot(make_repo(root))
    link = tmp_path / "link"
    link.symlink_to(root)
    assert list(apply(link, SERIES).commits) == ["backend", "dtype"]
    revert(link)
    assert snapshot(root) == before


def test_a_staged_file_that_is_a_link_is_not_followed(tmp_path: Path, root: Path) -> None:
    make_folder(root)
    outside = tmp_path / "precious"
    outside.write_text("precious\n")
    (root / "ptuning/.main.py.glmpatch-new").symlink_to(outside)
    apply(root, SERIES)
    assert outside.read_text() == "precious\n"
    assert not (root / "ptuning/main.py").is_symlink()


@pytest.mark.parametrize("path", ["../outside.py", "/etc/outside.py", "ptuning/../../outside.py", "ptuning/linked.py"])
def test_a_hostile_journal_does_not_lead_out_of_the_tree(tmp_path: Path, root: Path, path: str) -> None:
    make_folder(root)
    outside = tmp_path / "outside.py"
    outside.write_text("precious\n")
    (root / "ptuning/linked.py").symlink_to(outside)
    (root / ".glmpatch").mkdir()
    # `before` and `after` in base64: "evil", "precious\n".
    (root / JOURNAL_FILE).write_text(f'{{"{path}": {{"before": "ZXZpbA==", "after": "cHJlY2lvdXMK"}}}}')
    with pytest.raises(TreeError):
        revert(root)
    assert outside.read_text() == "precious\n"


@pytest.mark.parametrize("text", ["", "[]", '{"api.py": 1}', '{"api.py": {"before": "!", "after": ""}}', "\udcff"])
def test_a_broken_journal_is_named(root: Path, text: str) -> None:
    make_folder(root)
    (root / ".glmpatch").mkdir()
    (root / JOURNAL_FILE).write_bytes(os.fsencode(text))
    with pytest.raises(TreeError, match=r"0001\.json"):
        revert(root)


@pytest.mark.parametrize("name", [".glmpatch", ".glmpatch/0001.json", ".glmpatch/.0001.json.glmpatch-new"])
def test_a_hostile_link_in_the_journal_is_not_written_through(tmp_path: Path, root: Path, name: str) -> None:
    make_folder(root)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("{}")
    link = root / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if name == ".glmpatch" else outside / "file")
    if name == ".glmpatch":
        with pytest.raises(TreeError, match="symbolic link"):
            apply(root, SERIES)
    else:
        apply(root, SERIES)
    assert snapshot(outside) == {"file": ("-rw-r--r--", b"{}")}


@pytest.mark.parametrize("make", [make_folder, make_repo])
@pytest.mark.parametrize("commit", [True, False])
def test_a_folder_that_cannot_be_written_stays(
    root: Path, make: type, commit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(make(root))
    open_file = os.open

    def refusing(path: Path, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT and Path(path).name == ".web_demo.py.glmpatch-new":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(EnvironmentLacksError, match=r"cannot write .*web_demo\.py: Permission denied") as caught:
        apply(root, SERIES, commit=commit)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert upstream_files(root) == before
    monkeypatch.undo()
    apply(root, SERIES, commit=commit)
    revert(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("commit", [True, False])
def test_a_full_disk_leaves_every_file_as_it_was(root: Path, commit: bool) -> None:
    """A limit on the size of a file fails a write half-way, as a full disk does."""
    files = {**UPSTREAM, "web_demo_big.py": UPSTREAM["web_demo.py"] + b"#" * 200_000}
    before = snapshot(make_repo(root, files))
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            apply(root, SERIES, commit=commit)
        except EnvironmentLacksError:
            os._exit(ExitCode.ENVIRONMENT)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ExitCode.ENVIRONMENT
    assert snapshot(root) == before
    assert status(root) == []


def test_an_interrupt_leaves_no_staged_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(root)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_files(root, {"api.py": b"new\n"})
    assert snapshot(root) == snapshot(make_folder(root))


@pytest.mark.skipif(sys.platform != "linux", reason="device files of Linux")
def test_what_is_no_file_is_a_conflict(root: Path) -> None:
    make_folder(root)
    (root / "web_demo.py").unlink()
    os.mkfifo(root / "web_demo.py")
    (root / "ptuning/train.sh").unlink()
    (root / "ptuning/train.sh").mkdir()
    conflicts = survey(root, SERIES).conflicts
    assert {edit.path for edit in conflicts} == {"web_demo.py", "ptuning/train.sh"}


def test_a_folder_without_the_marks_is_not_upstream(root: Path) -> None:
    pin = UpstreamPin(url="", commit="", marks=["ptuning/main.py", "ptuning/gone.py", "elsewhere"])
    make_folder(root)
    with pytest.raises(UsageError, match=r"no ptuning/gone\.py, no elsewhere"):
        require_upstream(root, pin)


contents = st.dictionaries(
    st.sampled_from(["ptuning/main.py", "web_demo.py", "web_demo_old.py"]),
    st.lists(st.sampled_from([b"nccl", b"half().cuda()", b"half()", b"\r\n", b"\n", b"\t", b"\xe4\xb8\xad"])).map(
        b"".join
    ),
)


@given(contents)
def test_whatever_is_applied_is_reverted(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = make_folder(tmp_path_factory.mktemp("tree"), {**UPSTREAM, **files})
    before = snapshot(root)
    applied = apply(root, SERIES)
    if applied.plan.conflicts:
        assert snapshot(root) == before
    else:
        assert apply(root, SERIES).plan.done
        revert(root)
        assert snapshot(root) == before
