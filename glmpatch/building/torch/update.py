"""Brings the recipe up to date: the commits of its tags, and the lists of exact versions with their hashes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from glmpatch.building.torch.recipe import KINDS, Recipe, TorchVersion, lock_file
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.git_commands import GitFailedError, hardened_git, safe_url
from glmpatch.patching.tree import write_own_file
from glmpatch.process import CommandFailedError, find_program, stream

_HEADER = "# Written by `glmpatch update-recipe`: what torch {version} {kind}, in exact versions with their hashes.\n"
_MINORS = range(8, 20)


@dataclass(frozen=True, slots=True)
class Update:
    """What became of one version of the recipe.

    Attributes:
        version: The version of PyTorch.
        commit: The commit of its tag.
        moved: Whether the recipe had another one.
        lists: The lists that were written.
    """

    version: str
    commit: str
    moved: bool
    lists: tuple[Path, ...]


def update_version(file: Path, recipe: Recipe, name: str, say: Callable[[str], None]) -> Update:
    """Bring one version up to date.

    Args:
        file: The recipe's file. Only the commit in it is changed.
        recipe: It, read.
        name: The version.
        say: Told what is being done.

    Raises:
        EnvironmentLacksError: The repository or the package index cannot be reached, or uv is not there.
        UsageError: The repository has no such tag, or no Python goes with all requirements.
    """
    version = recipe.versions[name]
    say(f"ask {recipe.url} for {version.tag}")
    commit = _commit_of_tag(safe_url(recipe.url), version.tag)
    lists = []
    for kind in KINDS:
        say(f"resolve what torch {name} {kind}")
        text = _lock(version, getattr(version, kind))
        lists.append(lock_file(file, name, kind))
        write_own_file(lists[-1], (_HEADER.format(version=name, kind=kind) + text).encode())
    if commit != version.commit:
        write_own_file(file, _with_commit(file.read_text(encoding="utf-8"), name, commit).encode())
    return Update(name, commit, commit != version.commit, tuple(lists))


def _with_commit(text: str, name: str, commit: str) -> str:
    """The recipe with another commit for one version: a new one may have been copied from another, commit and all."""
    table = rf"^\[versions\.[\"']{re.escape(name)}[\"']\](?:\n(?!\[).*)*?\ncommit\s*=\s*[\"']"
    found = re.search(table, text, re.MULTILINE)
    if found is None:
        raise UsageError(f"there is no line for the commit of {name} in the recipe", hint=f'write commit = "{commit}"')
    return text[: found.end()] + commit + text[found.end() + len(commit) :]


def _commit_of_tag(url: str, tag: str) -> str:
    """The commit that a tag names, not the tag's own object."""
    with tempfile.TemporaryDirectory(prefix="glmpatch-recipe-") as folder:
        try:
            listed = hardened_git(Path(folder)).ls_remote(url, f"refs/tags/{tag}", f"refs/tags/{tag}^{{}}")
        except GitFailedError as error:
            raise EnvironmentLacksError(
                f"cannot read {url}: {error.message}", hint="see whether the network is there"
            ) from error
    commits: dict[str, str] = {}
    for line in str(listed).splitlines():
        commit, _, name = line.partition("\t")
        commits[name] = commit
    found = commits.get(f"refs/tags/{tag}^{{}}") or commits.get(f"refs/tags/{tag}")
    if found is None:
        raise UsageError(f"{url} has no tag {tag}", hint="see to the key `tag` in the recipe")
    return found


def _lock(version: TorchVersion, requirements: list[str]) -> str:
    """Exact versions for every Python that the version goes with, with the hashes of all their files."""
    try:
        find_program("uv")
    except EnvironmentLacksError as error:
        raise EnvironmentLacksError(
            "uv, which resolves requirements, is not installed", hint="pip install uv"
        ) from error
    with tempfile.TemporaryDirectory(prefix="glmpatch-recipe-") as folder:
        wanted, locked = Path(folder, "wanted.in"), Path(folder, "locked.txt")
        wanted.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        command = ["uv", "pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes", "--no-header"]
        command += [
            "--no-annotate",
            "--python-version",
            _oldest(version.python),
            "--output-file",
            str(locked),
            str(wanted),
        ]
        try:
            for _ in stream(command, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"}):
                pass
        except CommandFailedError as error:
            raise UsageError(f"the requirements cannot be resolved:\n{error.tail}", hint="see to the recipe") from error
        return locked.read_text(encoding="utf-8")


def _oldest(python: str) -> str:
    """The oldest Python of a specifier: 3.10 of `>=3.10,<3.15`."""
    allowed = SpecifierSet(python)
    for minor in _MINORS:
        if f"3.{minor}" in allowed:
            return f"3.{minor}"
    raise UsageError(f"no Python goes with {python}", hint="see to the key `python` in the recipe")
