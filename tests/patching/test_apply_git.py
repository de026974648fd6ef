"""Applying to real git working trees of every kind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from glmpatch import __version__
from glmpatch.errors import EnvironmentLacksError, TreeError
from glmpatch.patching.apply import apply, revert, survey
from glmpatch.patching.model import Edit
from glmpatch.patching.series import Series
from tests.engine_support import BACKEND, CHANGED, DTYPE, SERIES, Swap, patch
from tests.git_support import UPSTREAM, commit_all, git, make_folder, make_repo, settings, snapshot, status, subjects


def check_applied_and_reverted(root: Path) -> None:
    """Assert that apply makes its commits, a second one nothing, and revert gives the bytes back."""
    before = snapshot(root)
    tree = git(root, "rev-parse", "HEAD^{tree}")
    applied = apply(root, SERIES)
    assert list(applied.commits) == ["backend", "dtype"]
    assert subjects(root)[:2] == ["Do dtype", "Do backend"]
    assert status(root) == []
    assert apply(root, SERIES).plan.done
    assert len(subjects(root)) == 3
    assert revert(root).patches == ("backend", "dtype")
    assert snapshot(root) == before
    assert git(root, "rev-parse", "HEAD^{tree}") == tree
    assert status(root) == []
    assert revert(root).written == ()
    assert git(root, "for-each-ref", "refs/glmpatch", "refs/worktree") == ""


def test_one_commit_a_patch_with_trailers_and_no_identity(root: Path) -> None:
    make_repo(root)
    applied = apply(root, SERIES)
    assert sorted(applied.written) == CHANGED
    message = git(root, "log", "-1", "--format=%B", applied.commits["backend"])
    assert message == (
        "Do backend\n\nBecause of backend.\n\nCan go when: backend is done upstream\n\n"
        f"Glmpatch-Patch: backend\nGlmpatch-Version: {__version__}"
    )
    assert git(root, "log", "-1", "--format=%an <%ae> %cn") == "glmpatch <glmpatch@localhost> glmpatch"
    assert git(root, "show", "--name-only", "--format=", applied.commits["backend"]).split() == CHANGED[:2]
    assert git(root, "reflog", "-1", "--format=%gs") == "glmpatch"
    assert status(root) == []


def test_commits_carry_the_users_identity(root: Path) -> None:
    make_repo(root)
    git(root, "config", "user.name", "\u738b \u5c0f\u660e")
    git(root, "config", "user.email", "wang@example.org")
    apply(root, SERIES)
    assert (
        git(root, "log", "-1", "--format=%an <%ae> %cn") == "\u738b \u5c0f\u660e <wang@example.org> \u738b \u5c0f\u660e"
    )


def test_an_ordinary_clone(root: Path) -> None:
    check_applied_and_reverted(make_repo(root))
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_a_detached_head(root: Path) -> None:
    make_repo(root)
    git(root, "checkout", "--quiet", "--detach")
    main = git(root, "rev-parse", "main")
    check_applied_and_reverted(root)
    assert git(root, "rev-parse", "main") == main


def test_a_linked_worktree(tmp_path: Path, root: Path) -> None:
    make_repo(tmp_path / "first")
    git(tmp_path / "first", "worktree", "add", "--quiet", str(root))
    check_applied_and_reverted(root)
    assert subjects(tmp_path / "first") == ["upstream"]


def test_a_submodule(tmp_path: Path) -> None:
    make_repo(tmp_path / "upstream")
    outer = make_repo(tmp_path / "outer", {"mine.txt": b"mine\n"})
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "upstream"), "sub")
    commit_all(outer, "with a submodule")
    check_applied_and_reverted(outer / "sub")
    assert subjects(outer) == ["with a submodule", "upstream"]


def test_a_shallow_clone(tmp_path: Path, root: Path) -> None:
    make_repo(tmp_path / "upstream")
    (tmp_path / "upstream/README.md").write_text("more\n")
    commit_all(tmp_path / "upstream", "more")
    git(tmp_path, "clone", "--quiet", "--depth=1", (tmp_path / "upstream").as_uri(), str(root))
    before = snapshot(root)
    apply(root, SERIES)
    assert len(subjects(root)) == 3
    revert(root)
    assert snapshot(root) == before


def test_variables_of_a_hook_do_not_mislead(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_repo(tmp_path / "other", {"other.txt": b"other\n"})
    make_repo(root)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_QUARANTINE_PATH", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_PREFIX", "sub/")
    apply(root, SERIES)
    assert subjects(root)[0] == "Do dtype"
    assert subjects(other) == ["upstream"]
    assert status(other) == []


def test_no_hook_and_no_monitor_runs(tmp_path: Path, root: Path) -> None:
    make_repo(root)
    ran = tmp_path / "ran"
    names = "pre-commit commit-msg post-commit post-checkout post-index-change reference-transaction post-rewrite"
    for name in [*names.split(), "monitor"]:
        hook = root / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} >> {ran}\n")
        hook.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(root / ".git/hooks/monitor"))
    apply(root, SERIES)
    revert(root)
    apply(root, SERIES, commit=False)
    assert not ran.exists()


def test_a_dirty_tree_is_refused_with_the_list(root: Path) -> None:
    make_repo(root)
    (root / "README.md").write_text("mine\n")
    (root / "api.py").unlink()
    git(root, "mv", "requirements.txt", "needs.txt")
    before = snapshot(root)
    with pytest.raises(TreeError) as caught:
        apply(root, SERIES)
    listed = [line.strip() for line in caught.value.message.splitlines()[1:]]
    assert listed == ["README.md", "api.py", "needs.txt", "requirements.txt"]
    assert snapshot(root) == before
    assert subjects(root) == ["upstream"]


def test_allow_dirty_leaves_what_is_staged_staged(root: Path) -> None:
    make_repo(root)
    (root / "README.md").write_text("staged\n")
    (root / "mine.txt").write_text("mine\n")
    git(root, "add", "README.md", "mine.txt")
    (root / "README.md").write_text("not staged\n")
    (root / "untracked.txt").write_text("mine\n")
    before = status(root)
    apply(root, SERIES, allow_dirty=True)
    assert status(root) == before == ["MM README.md", "A  mine.txt", "?? untracked.txt"]
    assert git(root, "show", "HEAD:README.md") == UPSTREAM["README.md"].decode().rstrip()
    revert(root)
    assert status(root) == before
    assert git(root, "show", ":README.md") == "staged"


@pytest.mark.parametrize("stage", [True, False])
def test_allow_dirty_does_not_take_changes_of_the_user_along(root: Path, stage: bool) -> None:
    make_repo(root)
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes() + b"mine()\n")
    if stage:
        git(root, "add", "ptuning/main.py")
    before = snapshot(root)
    with pytest.raises(TreeError, match=r"would take your changes along, in: ptuning/main\.py"):
        apply(root, SERIES, allow_dirty=True)
    assert snapshot(root) == before
    apply(root, SERIES, commit=False)
    assert main.read_bytes().endswith(b"mine()\n")
    revert(root)
    assert snapshot(root) == before


def test_no_commit_on_a_git_tree_then_commits(root: Path) -> None:
    make_repo(root)
    before = snapshot(root)
    apply(root, SERIES, commit=False)
    assert [entry[:3] for entry in status(root)] == [" M "] * 4
    assert list(apply(root, SERIES).commits) == ["backend", "dtype"]
    assert status(root) == []
    assert not (root / ".git/glmpatch").exists()
    revert(root)
    assert snapshot(root) == before


def test_a_tree_that_the_user_unpatched_is_not_called_done(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    (root / "ptuning/main.py").write_bytes(UPSTREAM["ptuning/main.py"])
    with pytest.raises(TreeError, match=r"ptuning/main\.py"):
        apply(root, SERIES)
    (root / "ptuning/main.py").write_text("neither old nor new\n")
    with pytest.raises(TreeError, match=r"ptuning/main\.py"):
        apply(root, SERIES)


def test_other_changes_do_not_matter_where_nothing_is_to_do(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    (root / "README.md").write_text("mine\n")
    assert apply(root, SERIES).plan.done


@pytest.mark.parametrize("link", ["ptuning/main.py", "ptuning"])
def test_a_link_that_the_user_has_put_there_is_refused(tmp_path: Path, root: Path, link: str) -> None:
    """HEAD has plain files: the plan is clean, and still nothing may be written through the link."""
    make_repo(root)
    moved = tmp_path / "moved"
    (root / link).rename(moved)
    (root / link).symlink_to(moved)
    before = snapshot(tmp_path)
    with pytest.raises(TreeError, match=r"ptuning/main\.py"):
        apply(root, SERIES)
    with pytest.raises(TreeError, match=r"ptuning/main\.py"):
        apply(root, SERIES, allow_dirty=True)
    assert snapshot(tmp_path) == before


def test_an_untracked_file_is_not_patched(root: Path) -> None:
    make_repo(root, {path: data for path, data in UPSTREAM.items() if path != "ptuning/train.sh"})
    make_folder(root)
    (conflict,) = apply(root, SERIES, commit=False).plan.conflicts
    assert (conflict.path, getattr(conflict.outcome, "found", "")) == ("ptuning/train.sh", "an untracked file")


def test_a_glob_takes_files_of_head_alone(root: Path) -> None:
    make_repo(root)
    (root / "web_demo_mine.py").write_bytes(UPSTREAM["web_demo.py"])
    git(root, "add", "web_demo_mine.py")
    (root / "web_demo_too.py").write_bytes(UPSTREAM["web_demo.py"])
    apply(root, SERIES, allow_dirty=True)
    assert (root / "web_demo_mine.py").read_bytes() == UPSTREAM["web_demo.py"]
    assert (root / "web_demo_too.py").read_bytes() == UPSTREAM["web_demo.py"]
    assert status(root) == ["A  web_demo_mine.py", "?? web_demo_too.py"]


def test_a_repository_without_a_commit_says_so(root: Path) -> None:
    make_folder(root)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    with pytest.raises(TreeError, match="no commit yet"):
        apply(root, SERIES)


@pytest.mark.parametrize("damage", ["empty", "elsewhere", "bare", "file"])
def test_git_must_take_the_same_folder_for_the_top(tmp_path: Path, damage: str) -> None:
    outer = make_repo(tmp_path / "outer")
    root = make_folder(outer / "inner")
    if damage == "empty":
        (root / ".git").mkdir()
    elif damage == "file":
        (root / ".git").write_text("gitdir: nowhere\n")
    else:
        make_repo(root)
        git(root, "config", *(["core.worktree", str(outer)] if damage == "elsewhere" else ["core.bare", "true"]))
    before = snapshot(outer)
    with pytest.raises(EnvironmentLacksError):
        apply(root, SERIES)
    with pytest.raises(EnvironmentLacksError):
        revert(root)
    assert snapshot(outer) == before
    assert subjects(outer) == ["upstream"]


def test_a_locked_index_is_an_error_of_the_environment(root: Path) -> None:
    make_repo(root)
    lock = root / ".git/index.lock"
    lock.touch()
    with pytest.raises(EnvironmentLacksError, match=r"index\.lock"):
        apply(root, SERIES)
    lock.unlink()
    check = apply(root, SERIES)
    assert list(check.commits) == ["backend", "dtype"]
    assert status(root) == []


def test_a_commit_made_meanwhile_is_not_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(root)
    write = "glmpatch.patching.apply.write_files"
    monkeypatch.setattr(write, lambda *_: git(root, "commit", "--allow-empty", "--quiet", "--message", "meanwhile"))
    with pytest.raises(EnvironmentLacksError, match="HEAD"):
        apply(root, SERIES)
    assert subjects(root) == ["meanwhile", "upstream"]


def test_modes_of_the_index_survive_where_the_file_system_has_none(root: Path) -> None:
    make_repo(root)
    git(root, "config", "core.fileMode", "false")
    (root / "ptuning/train.sh").chmod(0o644)
    apply(root, SERIES)
    assert git(root, "ls-files", "--stage", "ptuning/train.sh").startswith("100755")
    assert stat.S_IMODE((root / "ptuning/train.sh").stat().st_mode) == 0o644
    assert status(root) == []


@pytest.mark.parametrize(
    ("autocrlf", "attributes", "files"),
    [
        ("true", None, "lf"),
        ("input", None, "lf"),
        ("true", None, "crlf"),
        ("input", None, "crlf"),
        ("false", None, "crlf"),
        ("false", "*.py text eol=crlf\n", "lf"),
        ("false", "* text=auto\n", "crlf"),
        ("true", "* text=auto\n", "lf"),
        ("false", "* text=auto eol=crlf\n", "lf"),
        ("false", "*.py -text\n", "crlf"),
        ("false", "*.py ident\n", "lf"),
        ("false", "*.py text working-tree-encoding=UTF-8\n", "lf"),
    ],
)
@pytest.mark.parametrize("commit", [True, False])
def test_line_endings(  # noqa: PLR0913, PLR0917 - one column each
    tmp_path: Path, root: Path, autocrlf: str, attributes: str | None, files: str, commit: bool
) -> None:
    """A fresh checkout under each setting: patched, clean, each line ending as it was, and back again."""
    ending = b"\r\n" if files == "crlf" else b"\n"
    source = make_repo(tmp_path / "source", {path: data.replace(b"\n", ending) for path, data in UPSTREAM.items()})
    if attributes is not None:
        (source / ".gitattributes").write_text(attributes)
        git(source, "add", ".gitattributes")
        git(source, "commit", "--quiet", "--message", "attributes")
    git(tmp_path, "clone", "--quiet", "-c", f"core.autocrlf={autocrlf}", str(source), str(root))
    before = snapshot(root)
    blobs = git(root, "ls-tree", "-r", "HEAD")
    assert status(root) == []

    apply(root, SERIES, commit=commit)
    for path in CHANGED:
        old, new = before[path][1], (root / path).read_bytes()
        assert [line.endswith(b"\r\n") for line in old.split(b"\n")] == [
            line.endswith(b"\r\n") for line in new.split(b"\n")
        ]
    if commit:
        assert status(root) == []
        git(root, "-c", "core.checkStat=minimal", "add", "--renormalize", "--dry-run", ".")
        inserted = git(root, "diff", "--shortstat", "HEAD~2", "HEAD", "--", "ptuning/main.py")
        assert "2 insertions(+), 2 deletions(-)" in inserted
    revert(root)
    assert snapshot(root) == before
    assert git(root, "ls-tree", "-r", "HEAD") == blobs
    assert status(root) == []


def test_a_filter_driver(root: Path) -> None:
    """A clean and a smudge filter: the commit holds what the filter stores, the tree what it shows."""
    make_repo(root)
    git(root, "config", "filter.rot.clean", "tr a-z n-za-m")
    git(root, "config", "filter.rot.smudge", "tr a-z n-za-m")
    (root / ".gitattributes").write_text("ptuning/main.py filter=rot\n")
    (root / "ptuning/main.py").touch()
    commit_all(root, "rotated")
    before = snapshot(root)
    assert status(root) == []
    apply(root, SERIES)
    assert b"gloo" in (root / "ptuning/main.py").read_bytes()
    assert "tybb" in git(root, "cat-file", "blob", "HEAD:ptuning/main.py")
    assert status(root) == []
    revert(root)
    assert snapshot(root) == before
    assert status(root) == []


def test_settings_of_the_users_git_do_not_matter(root: Path, neutral_environment: Path) -> None:
    make_repo(root)
    more = (
        "[log]\nshowSignature = true\nshowRoot = false\n[grep]\npatternType = fixed\n[color]\nui = always\n"
        "[status]\nshort = true\nbranch = true\nshowUntrackedFiles = all\n[diff]\nexternal = false\nnoprefix = true\n"
        "[core]\nquotePath = true\npager = false\n[commit]\ngpgSign = true\n[gpg]\nprogram = false\n"
        "[fastimport]\nunpackLimit = 1\n"
    )
    with settings(neutral_environment, more):
        apply(root, SERIES)
        assert revert(root).patches == ("backend", "dtype")


HOSTILE_NAMES = [
    'web_demo".py',
    "web_demo\n.py",
    "web_demo\t.py",
    "web_demo \\n.py",
    "web_demo[a].py",
    "web_demo\udcff.py",
]


def test_hostile_file_names(root: Path) -> None:
    injected = "web_demo_x\nM 100644 inline README.py"
    files = dict.fromkeys([*HOSTILE_NAMES, injected, "web_demo\u6f14\u793a.py"], UPSTREAM["web_demo.py"])
    check_applied_and_reverted(make_repo(root, {**UPSTREAM, **files}))


def test_a_path_with_the_signs_of_a_glob_is_one_file(root: Path) -> None:
    make_repo(root, {**UPSTREAM, "web_demo*.py": b"half().cuda()\n"})
    (root / "web_demo_old.py").write_text("mine\n")
    git(root, "add", "web_demo_old.py")
    only = Series((patch("star", Edit("web_demo[*].py", Swap(old="half().cuda()", new="bfloat16()"))),))
    apply(root, only, allow_dirty=True)
    assert status(root) == ["M  web_demo_old.py"]


def test_revert_keeps_later_commits_of_the_user(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes() + b"\n\nmine()\n")
    commit_all(root, "mine")
    revert(root)
    assert main.read_bytes() == UPSTREAM["ptuning/main.py"] + b"\n\nmine()\n"
    assert status(root) == []
    message = git(root, "log", "-1", "--format=%B").splitlines()
    assert message[:3] == ["Revert the patches of glmpatch", "", "backend, dtype"]
    assert sum(line.startswith("Glmpatch-Reverts: ") for line in message) == 2


def test_revert_refuses_where_a_commit_changed_the_same_lines(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes().replace(b"gloo", b"mine"))
    commit_all(root, "mine")
    before = snapshot(root)
    with pytest.raises(TreeError, match=r"ptuning/main\.py"):
        revert(root)
    assert snapshot(root) == before
    assert subjects(root)[0] == "mine"


def test_revert_refuses_uncommitted_changes_in_the_same_files_alone(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    (root / "README.md").write_text("mine\n")
    main = root / "ptuning/main.py"
    main.write_bytes(main.read_bytes() + b"mine()\n")
    with pytest.raises(TreeError, match=r"ptuning/main\.py") as caught:
        revert(root)
    assert "README.md" not in caught.value.message
    git(root, "checkout", "--quiet", "--", "ptuning/main.py")
    revert(root)
    assert status(root) == [" M README.md"]


def test_apply_revert_apply_again(root: Path) -> None:
    make_repo(root)
    apply(root, SERIES)
    revert(root)
    applied = apply(root, SERIES)
    assert list(applied.commits) == ["backend", "dtype"]
    assert revert(root).patches == ("backend", "dtype")
    assert status(root) == []


def test_what_the_user_reverted_is_not_reverted_again(root: Path) -> None:
    make_repo(root)
    before = snapshot(root)
    apply(root, SERIES)
    git(root, "revert", "--no-edit", "HEAD", "HEAD~1")
    assert revert(root).written == ()
    assert snapshot(root) == before
    assert len(subjects(root)) == 5


def test_commits_and_changes_without_a_commit_are_taken_back_together(root: Path) -> None:
    make_repo(root)
    before = snapshot(root)
    apply(root, Series((BACKEND,)))
    apply(root, Series((DTYPE,)), commit=False)
    reverted = revert(root)
    assert (sorted(reverted.written), reverted.patches) == (CHANGED, ("backend",))
    assert snapshot(root) == before
    assert status(root) == []


def test_a_commit_of_somebody_else_under_our_trailer_is_not_undone_blindly(root: Path) -> None:
    make_repo(root)
    (root / "added.py").write_text("a\n")
    git(root, "add", "added.py")
    git(root, "commit", "--quiet", "--message", "mine\n\nGlmpatch-Patch: mine")
    with pytest.raises(TreeError, match=r"adds or removes added\.py"):
        revert(root)


def test_a_trailer_on_the_first_commit_is_no_crash(root: Path) -> None:
    make_folder(root)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first\n\nGlmpatch-Patch: mine")
    with pytest.raises(TreeError, match="adds or removes"):
        revert(root)


def test_survey_reads_the_working_tree(root: Path) -> None:
    make_repo(root)
    assert sorted(survey(root, SERIES).after) == CHANGED
    apply(root, SERIES, commit=False)
    assert survey(root, SERIES).done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_somebody_else(root: Path) -> None:
    make_repo(root)
    os.chown(root, 12345, 12345)
    os.chown(root / ".git", 12345, 12345)
    with pytest.raises(EnvironmentLacksError, match="dubious ownership"):
        apply(root, SERIES)
