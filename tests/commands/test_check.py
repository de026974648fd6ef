"""`glmpatch check` and `glmpatch update-pin`, on a series and an upstream of our own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glmpatch.checking.source import Source
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.patching.series import load_upstream
from tests.commands.conftest import UPSTREAM_TOML, Run
from tests.git_support import commit_all, git, make_folder, snapshot


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def commit(source: Path, name: str, text: str, message: str = "drift") -> str:
    (source / name).write_text(text)
    return commit_all(source, message)


def pin(source: Path, commit: str) -> Path:
    file = source.parent / "patches/upstream.toml"
    file.write_text(UPSTREAM_TOML.format(url=source, commit=commit))
    return file


@pytest.fixture
def pinned(source: Path) -> str:
    """The only commit, pinned by its hash."""
    head = git(source, "rev-parse", "HEAD")
    pin(source, head)
    return head


@pytest.mark.usefixtures("pinned")
def test_all_patches_apply(glmpatch: Run, source: Path) -> None:
    git(source, "branch", "other")
    result = glmpatch("check")
    assert result.code == ExitCode.DONE, result.err
    assert "pinned, main, other" in result.out
    assert "No drift" in result.out


def test_a_branch_that_is_called_pinned(glmpatch: Run, source: Path, pinned: str) -> None:
    git(source, "switch", "--quiet", "--create", "pinned")
    newest = commit(source, "README.md", "x")
    trees = glmpatch("check", "--format", "json").json["trees"]
    assert {tree["commit"]["hash"]: tree["names"] for tree in trees} == {newest: ["pinned"], pinned: ["pinned", "main"]}


@pytest.mark.usefixtures("pinned")
def test_drift_on_any_branch_is_told_with_its_commit(glmpatch: Run, source: Path) -> None:
    git(source, "switch", "--quiet", "--create", "other")
    bad = commit(source, "ptuning/train.sh", "python3 main.py\n", "simplify")
    commit(source, "README.md", "x")
    git(source, "switch", "--quiet", "main")
    result = glmpatch("check")
    assert result.code == ExitCode.CONFLICT
    assert "ptuning/train.sh:1 (backend, swap)" in result.out
    assert f"{bad[:10]}" in result.out
    assert glmpatch("check", "--ref", "main").code == ExitCode.DONE
    assert glmpatch("check", "--ref", "main", "--ref", "other").code == ExitCode.CONFLICT
    assert glmpatch("check", "--skip", "backend").code == ExitCode.DONE


@pytest.mark.usefixtures("pinned")
def test_the_next_run_fetches_what_is_new(glmpatch: Run, source: Path) -> None:
    assert glmpatch("check").code == ExitCode.DONE
    commit(source, "ptuning/train.sh", "python3 main.py\n")
    assert glmpatch("check", "--offline").code == ExitCode.DONE
    assert glmpatch("check").code == ExitCode.CONFLICT
    assert glmpatch("check", "--offline").code == ExitCode.CONFLICT


@pytest.mark.usefixtures("pinned")
def test_what_was_found_is_kept_unless_not_wanted(glmpatch: Run, cache: Path) -> None:
    first = glmpatch("check", "--format", "json").json
    assert first["computed"] == first["files"] > 0
    assert glmpatch("check", "--format", "json").json["computed"] == 0
    assert glmpatch("check", "--format", "json", "--no-cache").json["computed"] > 0
    for file in (cache / "glmpatch/results").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert glmpatch("check", "--format", "json").json["computed"] > 0


@pytest.mark.usefixtures("pinned")
def test_a_broken_mirror_is_made_anew(glmpatch: Run, cache: Path) -> None:
    assert glmpatch("check").code == ExitCode.DONE
    (mirror,) = (cache / "glmpatch/mirrors").glob("*.git")
    for file in (mirror / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(b"damaged")
    result = glmpatch("check", "--offline")
    assert result.code == ExitCode.ENVIRONMENT
    assert "without --offline" in result.err
    assert glmpatch("check").code == ExitCode.DONE


def test_the_history(glmpatch: Run, source: Path, pinned: str) -> None:
    bad = commit(source, "ptuning/train.sh", "python3 main.py\n", "bad")
    good = commit(source, "ptuning/train.sh", "python3 main.py --quantization_bit 4\n", "good")
    result = glmpatch("check", "--history", "--format", "json")
    assert result.code == ExitCode.DONE, "what an old commit had is no drift"
    assert [tree["commit"]["hash"] for tree in result.json["trees"]] == [good, bad, pinned]
    assert len(glmpatch("check", "--history", "--since", "2001-01-01", "--format", "json").json["trees"]) == 3
    assert len(glmpatch("check", "--history", "--since", "2999-01-01", "--format", "json").json["trees"]) == 2


@pytest.mark.usefixtures("source")
def test_a_folder(glmpatch: Run, tmp_path: Path, cache: Path) -> None:
    fork = make_folder(tmp_path / "fork")
    before = snapshot(fork)
    assert glmpatch("check", "--tree", fork).code == ExitCode.DONE
    assert snapshot(fork) == before
    assert not (cache / "glmpatch/mirrors").exists()
    (fork / "ptuning/train.sh").write_text("python3 main.py\n")
    result = glmpatch("check", "--tree", fork, "--format", "github")
    assert result.code == ExitCode.CONFLICT
    assert "::error file=" in result.out
    (fork / "ptuning/train.sh").unlink()
    assert glmpatch("check", "--tree", fork).code == ExitCode.USAGE


@pytest.mark.usefixtures("pinned")
def test_reports_go_to_files_and_one_to_standard_output(glmpatch: Run, tmp_path: Path) -> None:
    files = [tmp_path / f"new/report.{suffix}" for suffix in ("html", "json", "xml", "md")]
    result = glmpatch("check", *(part for file in files for part in ("-o", file)))
    assert result.code == ExitCode.DONE
    assert "No drift" in result.out
    assert files[0].read_text().lower().startswith("<!doctype html>")
    assert json.loads(files[1].read_text())["schema"] == 1
    assert files[2].read_text().startswith("<?xml")
    assert "|" in files[3].read_text()
    result = glmpatch("check", "--format", "json", "-o", tmp_path / "a.txt", "--format", "markdown")
    assert json.loads((tmp_path / "a.txt").read_text())["schema"] == 1
    assert "|" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tree", ".", "--ref", "main"], "--tree checks a folder"),
        (["--tree", ".", "--history"], "--tree checks a folder"),
        (["--tree", ".", "--upstream", "x"], "--tree checks a folder"),
        (["--tree", "/nowhere"], "does not exist"),
        (["--since", "2023-01-01"], "add --history"),
        (["--history", "--since", "yesterday"], "does not match"),
        (["--timeout", "0"], "timeout"),
        (["--format", "pdf"], "pdf"),
        (["--format", "json", "--format", "html"], "only one report"),
        (["--format", "json", "-o", "a", "-o", "b"], "more files"),
        (["-o", "report.pdf"], "tells no format"),
        (["-o", "-"], "tells no format"),
        (["-o", "a.md", "-o", "a.md"], "one file"),
        (["--ref", "nowhere"], "nowhere"),
        (["--ref", "--upload-pack=x"], "--upload-pack=x"),
        (["--upstream", "ext::sh -c x"], "is not a URL"),
        (["--only", "nothing"], "no patch is called"),
    ],
)
@pytest.mark.usefixtures("pinned")
def test_wrong_usage(glmpatch: Run, arguments: list[str], message: str) -> None:
    result = glmpatch("check", *arguments)
    assert result.code == ExitCode.USAGE, result
    assert message in result.err


@pytest.mark.usefixtures("pinned")
def test_a_report_that_cannot_be_written(glmpatch: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = glmpatch("check", "-o", tmp_path / "file/report.html")
    assert result.code == ExitCode.ENVIRONMENT
    assert "cannot write" in result.err


def test_an_upstream_that_is_not_there_is_not_drift(glmpatch: Run, source: Path, tmp_path: Path) -> None:
    pin(tmp_path / "nowhere", git(source, "rev-parse", "HEAD"))
    result = glmpatch("check")
    assert result.code == ExitCode.ENVIRONMENT
    assert "cannot reach" in result.err
    assert glmpatch("check", "--offline").code == ExitCode.ENVIRONMENT


@pytest.mark.usefixtures("pinned")
def test_a_server_that_hangs_is_given_up(glmpatch: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://user:t0ken@127.0.0.1:{server.getsockname()[1]}/x"
        start = time.monotonic()
        result = glmpatch("check", "--upstream", url, "--timeout", "0.5")
        assert time.monotonic() - start < 30
    assert result.code == ExitCode.ENVIRONMENT
    assert "cannot reach" in result.err
    assert "t0ken" not in result.err


def test_a_pinned_commit_that_went(glmpatch: Run, source: Path) -> None:
    pin(source, "1" * 40)
    result = glmpatch("check")
    assert result.code == ExitCode.ENVIRONMENT
    assert "update-pin" in result.err
    assert glmpatch("check", "--upstream", source).code == ExitCode.DONE, "a fork may lack it"


@pytest.mark.usefixtures("pinned")
def test_a_password_is_not_shown_while_it_is_fetched() -> None:
    url = "https://user:t0ken@127.0.0.1:9/x"
    said: list[str] = []
    with pytest.raises(EnvironmentLacksError):
        Source(url).ask(load_upstream(), lambda _mirror: None, said.append)
    assert said == ["fetching https://127.0.0.1:9/x"]


def test_two_checks_at_once(source: Path, pinned: str, tmp_path: Path) -> None:
    """Whole processes, on the real patches: they share a mirror that neither has made before."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "glmpatch",
        "check",
        "--ref",
        pinned,
        "--upstream",
        source,
        "--skip",
        "precision",
    ]
    both = [
        subprocess.Popen([*command, "-o", tmp_path / f"{number}.json"], env=os.environ, stderr=subprocess.PIPE)
        for number in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [ExitCode.CONFLICT] * 2, errors
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    assert first["trees"] == second["trees"]


class TestUpdatePin:
    def test_moves_to_the_newest_commit(self, glmpatch: Run, source: Path, pinned: str) -> None:
        commit(source, "README.md", "x", "not ours")
        newest = commit(source, "requirements.txt", "a\n", "also not ours")
        file = pin(source, pinned)
        before = file.read_text()
        result = glmpatch("update-pin", "--dry-run")
        assert (result.code, file.read_text()) == (ExitCode.DONE, before)
        assert glmpatch("update-pin").code == ExitCode.DONE
        assert file.read_text() == before.replace(pinned, newest)
        result = glmpatch("update-pin")
        assert result.code == ExitCode.DONE
        assert "there is no newer one" in result.out

    def test_shows_what_changed_in_the_patched_files(self, glmpatch: Run, source: Path, pinned: str) -> None:
        assert pinned
        touching = commit(source, "ptuning/train.sh", "python3 main.py --quantization_bit 4 --x\n", "one flag")
        commit(source, "README.md", "x", "not ours")
        result = glmpatch("update-pin")
        assert "+python3 main.py --quantization_bit 4 --x\n" in result.out
        assert f"{touching[:10]}" in result.out
        assert "one flag" in result.out
        assert "not ours" not in result.out

    def test_passes_over_what_does_not_pass(self, glmpatch: Run, source: Path, pinned: str) -> None:
        good = commit(source, "README.md", "x")
        commit(source, "ptuning/train.sh", "python3 main.py\n", "bad")
        file = pin(source, pinned)
        result = glmpatch("update-pin")
        assert result.code == ExitCode.CONFLICT
        assert good in file.read_text()
        assert "ptuning/train.sh:1 (backend, swap)" in result.out
        again = glmpatch("update-pin")
        assert again.code == ExitCode.CONFLICT
        assert "no newer one passes" in again.out

    def test_never_goes_back(self, glmpatch: Run, source: Path, pinned: str) -> None:
        git(source, "branch", "old")
        newest = commit(source, "README.md", "x")
        file = pin(source, newest)
        result = glmpatch("update-pin", "--ref", "old")
        assert result.code == ExitCode.DONE
        assert newest in file.read_text()
        assert pinned not in file.read_text()

    def test_a_branch_that_is_called_like_the_pinned_commit(self, glmpatch: Run, source: Path, pinned: str) -> None:
        newest = commit(source, "README.md", "x")
        git(source, "update-ref", f"refs/heads/{pinned}", newest)
        result = glmpatch("update-pin", "--dry-run")
        assert (result.code, f"{newest} would be pinned" in result.out) == (ExitCode.DONE, True), result.err
        trees = glmpatch("check", "--format", "json").json["trees"]
        assert [tree["names"] for tree in trees if tree["commit"]["hash"] == pinned] == [["pinned"]]

    def test_takes_from_elsewhere_only_what_the_official_repository_has(
        self, glmpatch: Run, source: Path, tmp_path: Path, pinned: str
    ) -> None:
        git(tmp_path, "clone", "--quiet", str(source), "other")
        newest = commit(tmp_path / "other", "README.md", "x")
        # The official server would give it, as it gives what forks have.
        git(source, "fetch", "--quiet", str(tmp_path / "other"), "main:refs/pull/1/head")
        file = pin(source, pinned)
        for more in ([], ["--dry-run"]):
            result = glmpatch("update-pin", "--upstream", tmp_path / "other", *more)
            assert (result.code, f"no branch of {source} has it" in result.err) == (ExitCode.USAGE, True), result
        source.rename(tmp_path / "away")
        result = glmpatch("update-pin", "--upstream", tmp_path / "other")
        assert (result.code, "cannot be asked" in result.err) == (ExitCode.ENVIRONMENT, True), result
        assert "--upstream" not in result.err
        assert pinned in file.read_text()
        (tmp_path / "away").rename(source)
        git(source, "merge", "--quiet", "refs/pull/1/head")
        assert glmpatch("update-pin", "--upstream", tmp_path / "other").code == ExitCode.DONE
        assert newest in file.read_text()

    def test_needs_the_marks_of_upstream(self, glmpatch: Run, source: Path, pinned: str) -> None:
        file = pin(source, pinned)
        file.write_text(file.read_text().replace('"ptuning/train.sh"]', '"ptuning/train.sh", "README.md"]'))
        git(source, "rm", "--quiet", "README.md")
        commit_all(source, "no readme")
        assert glmpatch("update-pin").code == ExitCode.CONFLICT
        assert pinned in file.read_text()
