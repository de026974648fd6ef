"""A stand-in of PyTorch's source: small, but every step of PyTorch's build is there, and what it builds works."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.git_support import commit_all, git

_TREE = Path(__file__).parent / "standin"
_SUBMODULE = "third_party/tiny"


@dataclass(frozen=True, slots=True)
class StandinRepo:
    """A repository of the stand-in.

    Attributes:
        path: Its folder, which can be cloned and whose files, those of the submodule among them, are checked out.
        commit: The hash of its one commit.
    """

    path: Path
    commit: str


def make_repository(folder: Path) -> StandinRepo:
    """A repository in `folder`, and beside it the one of its submodule. git follows it with protocol.file.allow."""
    path, submodule = folder / "pytorch", folder / "tiny"
    shutil.copytree(_TREE, path, ignore=shutil.ignore_patterns("__pycache__"))
    # For mypy, which takes the package in the tree for the real torch without it.
    (path / "__init__.py").unlink()
    shutil.move(path / _SUBMODULE, submodule)
    for repository in (submodule, path):
        git(repository, "init", "--quiet", "--template=")
        # As public hosts do.
        for answer in ("allowFilter", "allowAnySHA1InWant"):
            git(repository, "config", f"uploadpack.{answer}", "true")
    commit_all(submodule, "the submodule")
    git(path, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../tiny", _SUBMODULE)
    return StandinRepo(path, commit_all(path, "the stand-in"))


def make_tarball(folder: Path) -> Path:
    """A tarball of all files, those of the submodule among them, in one folder and without what is git's."""
    tree, tarball = make_repository(folder / "packed").path, folder / "pytorch.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tree, "pytorch", filter=lambda member: None if Path(member.name).name == ".git" else member)
    return tarball
