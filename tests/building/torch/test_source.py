from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.torch.options import TorchChoices, TorchOptions
from glmpatch.building.torch.recipe import recipe_file
from glmpatch.building.torch.source import checksum, read_from_source, source_inputs
from glmpatch.errors import EnvironmentLacksError, UsageError
from tests.git_support import commit_all, git, make_folder, make_repo, settings

FILE = "torch/csrc/ProcessGroupMPI.cpp"
FILES = {FILE: b"// \xe4\xb8\xad\r\nint x;\n\n", "setup.py": b"", "build/x": b"1", "tools/build/y.py": b"1"}


def tree_options(source: Path) -> TorchOptions:
    return TorchOptions(TorchChoices(flavour="intel", source=source))


def remote_options(tmp_path: Path, url: Path | str, commit: str) -> TorchOptions:
    """A recipe whose one version is at that commit."""
    text = recipe_file().read_text()
    default = TorchOptions(TorchChoices(flavour="intel")).torch.commit
    (tmp_path / "torch.toml").write_text(text.replace(default, commit))
    return TorchOptions(TorchChoices(flavour="intel", url=str(url), recipe=tmp_path / "torch.toml"))


def test_a_tree(tmp_path: Path) -> None:
    options = tree_options(make_folder(tmp_path / "tree", FILES))
    assert read_from_source(options, FILE) == FILES[FILE]
    assert read_from_source(options, "missing.cpp") is None
    assert read_from_source(options, "torch") is None


CHANGES: dict[str, tuple[bool, Callable[[Path], Any]]] = {
    "a file of another size": (True, lambda tree: (tree / FILE).write_bytes(b"")),
    "a file of the same size": (True, lambda tree: os.utime(tree / "setup.py", (1, 1))),
    "a new file": (True, lambda tree: (tree / "new").touch()),
    "another name": (True, lambda tree: (tree / FILE).rename(tree / "torch/x.cpp")),
    "a name that is no text": (True, lambda tree: Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).touch()),
    "a folder deep in it that is called build": (True, lambda tree: (tree / "tools/build/y.py").write_text("22")),
    "what was built": (False, lambda tree: make_folder(tree, {"build/x": b"22", "dist/x.whl": b""})),
    "what git and Python keep": (False, lambda tree: make_folder(tree, {".git/x": b"", "a/__pycache__/x": b""})),
    "nothing": (False, lambda tree: (tree / FILE).read_bytes()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tree_that_was_changed_is_another(tmp_path: Path, change: str) -> None:
    options = tree_options(make_folder(tmp_path / "tree", FILES))
    assert options.source
    before = source_inputs(options)
    assert set(before) == {"tree"}
    other, act = CHANGES[change]
    act(options.source)
    assert (source_inputs(options) != before) == other


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("root", ["pytorch-v2", "./pytorch-v2"])
def test_a_tarball(tmp_path: Path, mode: str, root: str) -> None:
    make_folder(tmp_path / "tree", FILES)
    tarball = tmp_path / "x.tar"
    with tarfile.open(tarball, mode) as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "tree", root)
    options = tree_options(tarball)
    assert read_from_source(options, FILE) == FILES[FILE]
    assert read_from_source(options, "missing.cpp") is None
    assert source_inputs(options) == {"sha256": hashlib.sha256(tarball.read_bytes()).hexdigest()}
    data = tarball.read_bytes()
    tarball.write_bytes(data[: len(data) // 2])
    if mode != "w":
        with pytest.raises(UsageError, match=r"x\.tar: ") as caught:
            read_from_source(options, "missing.cpp")
        assert caught.value.hint == "give a folder or a tarball with --source"


def test_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"not at all")
    with pytest.raises(UsageError, match=r"x\.tar\.gz: "):
        read_from_source(tree_options(tmp_path / "x.tar.gz"), FILE)
    with pytest.raises(UsageError, match="No such file"):
        source_inputs(tree_options(tmp_path / "missing.tar"))
    with pytest.raises(UsageError, match="Is a directory"):
        checksum(tmp_path)


@pytest.mark.parametrize("answers", ["true", "false"])
def test_one_file_of_a_repository(tmp_path: Path, answers: str) -> None:
    """Also of one that gives neither parts nor single commits away: then more is fetched than is needed."""
    repository = make_repo(tmp_path / "repository", FILES)
    commit = git(repository, "rev-parse", "HEAD")
    (repository / FILE).write_bytes(b"newer")
    commit_all(repository, "newer")
    for answer in ("allowFilter", "allowAnySHA1InWant"):
        git(repository, "config", f"uploadpack.{answer}", answers)
    options = remote_options(tmp_path, repository, commit)
    assert source_inputs(options) == {"url": str(repository), "commit": commit}
    assert read_from_source(options, FILE) == FILES[FILE]
    assert read_from_source(options, "missing.cpp") is None


def test_a_commit_that_is_not_to_be_had(tmp_path: Path, neutral_environment: Path) -> None:
    repository = make_repo(tmp_path / "repository", FILES)
    hint = "see whether the network is there, or give a clone with --source"
    with pytest.raises(EnvironmentLacksError, match=f"cannot read {FILE} from {repository}: .*not our ref") as caught:
        read_from_source(remote_options(tmp_path, repository, "1" * 40), FILE)
    assert caught.value.hint == hint
    # A server of before 2018 gives only what a branch or a tag names.
    old = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "--quiet", "--amend", "--message", "other")
    with settings(neutral_environment, "[protocol]\n\tversion = 0\n"):
        with pytest.raises(EnvironmentLacksError, match=f"cannot read {FILE}") as caught:
            read_from_source(remote_options(tmp_path, repository, old), FILE)
        git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
        assert read_from_source(remote_options(tmp_path, repository, old), FILE) == FILES[FILE]


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"from http://127\.0\.0\.1:9/x: .*Failed to connect"):
        read_from_source(remote_options(tmp_path, "http://127.0.0.1:9/x", "1" * 40), FILE)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    repository = make_repo(tmp_path / "repository", FILES)
    read_from_source(remote_options(tmp_path, repository, git(repository, "rev-parse", "HEAD")), FILE)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert subprocess.run(["git", "fsck"], cwd=repository, check=True, capture_output=True).returncode == 0
