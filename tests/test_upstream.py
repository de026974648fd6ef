"""Cloning from real servers: local ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glmpatch.checkout import Checkout, merge
from glmpatch.errors import EnvironmentLacksError, ExitCode, UsageError
from glmpatch.upstream import clone
from tests.git_support import UPSTREAM, commit_all, git, make_folder, make_repo, settings, snapshot, status, subjects


def accept(_folder: Path) -> None:
    """Any repository will do."""


def check_clone(target: Path, commit: str) -> None:
    assert git(target, "rev-parse", "HEAD") == commit
    assert git(target, "symbolic-ref", "--short", "HEAD") == "glmpatch"
    assert status(target) == []
    assert [path.name for path in target.parent.iterdir() if path.name.endswith(".glmpatch")] == []


@pytest.mark.parametrize(("ref", "commit"), [("main", "main"), ("old", "main~1"), ("v1", "main~1"), ("HEAD", "main")])
def test_a_name_is_fetched_alone(tmp_path: Path, source: Path, ref: str, commit: str) -> None:
    clone(source.as_uri(), ref, tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", git(source, "rev-parse", commit))
    assert len(subjects(tmp_path / "target")) == 1
    assert git(tmp_path / "target", "remote", "get-url", "origin") == source.as_uri()
    assert {path: data for path, (_, data) in snapshot(tmp_path / "target").items()}.keys() == UPSTREAM.keys()


def test_a_full_hash_is_fetched_alone(tmp_path: Path, source: Path) -> None:
    commit = git(source, "rev-parse", "main~1")
    clone(source.as_uri(), commit, tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", commit)
    assert (tmp_path / "target/.git/shallow").exists()


def test_a_server_that_gives_no_single_commits(tmp_path: Path, source: Path, neutral_environment: Path) -> None:
    """Protocol 0 serves what has a name, and no other commit: then the whole is fetched."""
    commit = git(source, "rev-parse", "main~1")
    git(source, "tag", "--delete", "v1")
    git(source, "branch", "--quiet", "-D", "old")
    with settings(neutral_environment, "[protocol]\n\tversion = 0\n"):
        clone(source.as_uri(), commit, tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", commit)
    assert not (tmp_path / "target/.git/shallow").exists()


def test_a_branch_that_is_called_like_a_hash_is_not_taken_for_the_commit(
    tmp_path: Path, source: Path, neutral_environment: Path
) -> None:
    """Where the commit is not served alone, all branches are fetched."""
    commit = git(source, "rev-parse", "main~1")
    git(source, "tag", "--delete", "v1")
    git(source, "branch", "--quiet", "-D", "old")
    git(source, "update-ref", f"refs/heads/{commit}", "main")
    with settings(neutral_environment, "[protocol]\n\tversion = 0\n"):
        clone(source.as_uri(), commit, tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", commit)


@pytest.mark.parametrize("ref", ["main", "main~1"])
def test_a_password_stays_secret(tmp_path: Path, source: Path, neutral_environment: Path, ref: str) -> None:
    url = "https://user:t0ken@127.0.0.1:9/x/y"
    with pytest.raises(EnvironmentLacksError, match=r"cannot fetch https://127\.0\.0\.1:9/x/y: ") as caught:
        clone(url, ref, tmp_path / "target", accept=accept)
    assert "t0ken" not in caught.value.message
    with settings(neutral_environment, f'[url "{source}"]\n\tinsteadOf = {url}\n'):
        clone(url, ref, tmp_path / "target", accept=accept)
        with pytest.raises(UsageError) as refused:
            clone(url, "nowhere", tmp_path / "other", accept=accept)
    assert "t0ken" not in refused.value.message
    check_clone(tmp_path / "target", git(source, "rev-parse", ref))
    assert git(tmp_path / "target", "remote", "get-url", "origin") == "https://127.0.0.1:9/x/y"
    assert git(tmp_path / "target", "rev-parse", "origin/main") == git(source, "rev-parse", "main")
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_file() and b"t0ken" in path.read_bytes()]


def test_a_repository_of_another_user_is_named_with_the_mend_of_git(
    tmp_path: Path, source: Path, neutral_environment: Path
) -> None:
    server = "env GIT_TEST_ASSUME_DIFFERENT_OWNER=1 git-upload-pack"
    with (
        settings(neutral_environment, f'[remote "origin"]\n\tuploadpack = {server}\n'),
        pytest.raises(EnvironmentLacksError, match=r"fatal: .*ownership") as caught,
    ):
        clone(str(source), "main", tmp_path / "target", accept=accept)
    assert f"git config --global --add safe.directory {source}" in caught.value.hint


def test_another_default_for_hashes(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    clone(str(source), "main", tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", git(source, "rev-parse", "main"))


@pytest.mark.parametrize("ref", ["main~1", "v1^0"])
def test_an_expression_and_a_short_hash_need_the_whole(tmp_path: Path, source: Path, ref: str) -> None:
    commit = git(source, "rev-parse", "main~1")
    clone(str(source), ref, tmp_path / "target", accept=accept)
    check_clone(tmp_path / "target", commit)
    clone(str(source), commit[:9], tmp_path / "short", accept=accept)
    check_clone(tmp_path / "short", commit)


def test_a_relative_path(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clone("source", "main", Path("target"), accept=accept)
    check_clone(tmp_path / "target", git(source, "rev-parse", "main"))
    assert git(tmp_path / "target", "remote", "get-url", "origin") == str(source)
    (tmp_path / "link").symlink_to("linked")
    (tmp_path / "linked").mkdir()
    clone("source", "main", Path("link"), accept=accept)
    check_clone(tmp_path / "linked", git(source, "rev-parse", "main"))


def test_the_current_folder_cannot_be_replaced(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="from inside it"):
        clone(str(source), "main", Path(), accept=accept)


def test_a_target_in_folders_that_do_not_exist_and_an_empty_one(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "a/b/target"
    clone(str(source), "main", target, accept=accept)
    check_clone(target, git(source, "rev-parse", "main"))
    empty = tmp_path / "empty"
    empty.mkdir()
    clone(str(source), "main", empty, accept=accept)
    check_clone(empty, git(source, "rev-parse", "main"))


def test_hooks_and_templates_of_the_user_are_off(tmp_path: Path, source: Path, neutral_environment: Path) -> None:
    ran = tmp_path / "ran"
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    more = f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n[fetch]\n\tprune = true\n"
    with settings(neutral_environment, more):
        clone(str(source), "main", tmp_path / "target", accept=accept)
    assert not ran.exists()
    assert not (tmp_path / "target/.git/hooks").exists()


def test_submodules_stay_empty(tmp_path: Path, source: Path) -> None:
    outer = make_repo(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "sub")
    commit_all(outer, "sub")
    clone(str(outer), "main", tmp_path / "target", accept=accept)
    assert list((tmp_path / "target/sub").iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch ran'",
        "fd::17",
        "ext:x",
        "-u./evil",
        "--upload-pack=touch ran",
        "http::https://example.org/x",
        "::x",
    ],
)
def test_a_url_that_runs_something_is_wrong_usage(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        clone(url, "main", tmp_path / "a/target", accept=accept)
    assert caught.value.exit_code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ref", ["-x", "--upload-pack=touch ran", "main:other", "+main", "refs/heads/*", "^main", "a b"]
)
def test_a_ref_that_is_none_is_wrong_usage(tmp_path: Path, source: Path, ref: str) -> None:
    with pytest.raises(UsageError, match="is not a commit"):
        clone(str(source), ref, tmp_path / "target", accept=accept)
    assert not (tmp_path / "target").exists()


def test_an_unknown_ref_is_wrong_usage(tmp_path: Path, source: Path) -> None:
    for ref in ("nowhere", "0" * 40):
        with pytest.raises(UsageError, match="no commit, branch or tag"):
            clone(str(source), ref, tmp_path / "a/b/target", accept=accept)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("url", ["/nowhere/at/all", "nowhere", "http://127.0.0.1:9/x", "gopher://example.org/x"])
def test_what_cannot_be_reached_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(EnvironmentLacksError, match="cannot fetch") as caught:
        clone(url, "main", tmp_path / "target", accept=accept)
    assert url in caught.value.message
    assert "--upstream" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_protocol_that_the_user_allows_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper for the URL would be run by its scheme alone."""
    helper = tmp_path / "bin/git-remote-evil"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "evil")
    with pytest.raises(EnvironmentLacksError, match="evil"):
        clone("evil://x", "main", tmp_path / "target", accept=accept)
    assert not (tmp_path / "ran").exists()


def test_what_is_refused_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def refuse(folder: Path) -> None:
        assert (folder / "ptuning/main.py").exists()
        raise UsageError("not the one")

    with pytest.raises(UsageError, match="not the one"):
        clone(str(source), "main", tmp_path / "a/b/target", accept=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_target_that_cannot_be_made_is_named(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentLacksError, match=r"cannot clone into .*file/target"):
        clone(str(source), "main", tmp_path / "file/target", accept=accept)
    full = make_folder(tmp_path / "full")
    before = snapshot(full)
    with pytest.raises(EnvironmentLacksError, match="not empty"):
        clone(str(source), "main", full, accept=accept)
    assert snapshot(full) == before


def test_without_git_it_says_so(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for action in (
        lambda: clone(str(source), "main", tmp_path / "target", accept=accept),
        lambda: Checkout(source),
        lambda: merge(b"", b"", b""),
    ):
        with pytest.raises(EnvironmentLacksError, match="git is not installed"):
            action()


CLONING = """
import signal, sys
from pathlib import Path
from glmpatch.upstream import clone
signal.signal(signal.SIGTERM, signal.default_int_handler)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    clone(sys.argv[1], "main", Path(sys.argv[2]), accept=lambda folder: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", [True, False])
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path, source: Path, sign: int, stubborn: bool) -> None:
    """The signal goes to us alone, as from `kill`; git, its helper and the server's side must go as well."""
    started = tmp_path / "bin/started"
    started.parent.mkdir()
    slow = started.with_name("slow")
    trap = "trap '' TERM INT HUP PIPE\n" if stubborn else ""
    slow.write_text(f"#!/bin/sh\n{trap}echo $$ > {started}.new; mv {started}.new {started}\nsleep 60\n")
    slow.chmod(0o755)
    config = tmp_path / "bin/gitconfig"
    config.write_text(f"[uploadpack]\n\tpackObjectsHook = {slow}\n")
    process = subprocess.Popen(
        [sys.executable, "-c", CLONING, source.as_uri(), str(tmp_path / "a/target")],
        env={**os.environ, "GIT_CONFIG_GLOBAL": str(config), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_for(started.exists)
    process.send_signal(sign)
    assert process.wait(20) == ExitCode.INTERRUPTED
    helper = Path("/proc", started.read_text().strip())
    wait_for(lambda: not helper.exists())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "source"]


def wait_for(condition: object) -> None:
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.02)
    pytest.fail("waited in vain")
