"""Histories of upstream that drift, made in one go: `git fast-import` writes a thousand commits in a moment."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from glmpatch.assets import asset_folder

Change: TypeAlias = "bytes | Link | Submodule | None"
# Each commit is a day later than the one before.
FIRST_DAY = 1_680_000_000
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Submodule:
    """A commit of another repository in the place of a file."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A commit: what it changes, by path; None removes a file.

    Attributes:
        changes: The files.
        subject: Its message.
        parents: The numbers of its parents in the history; by default the commit before.
    """

    changes: Mapping[str, Change]
    subject: str = "drift"
    parents: tuple[int, ...] | None = field(default=None)


def stand_in() -> dict[str, bytes]:
    """The files of the stand-in for upstream, which the real patches fit."""
    root = asset_folder("templates") / "demo" / "upstream"
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def make_history(folder: Path, commits: Sequence[Drift], heads: Mapping[str, int] | None = None) -> list[str]:
    """Make a bare repository.

    Args:
        folder: Where; made if it is not there, added to if it is.
        commits: The commits; the first has no parent.
        heads: The branches, each with the number of its commit; by default `main` is the last.

    Returns:
        The hashes of the commits.
    """
    heads = {"main": len(commits) - 1} if heads is None else heads
    subprocess.run(["git", "init", "--quiet", "--bare", "--template=", "--initial-branch=main", folder], check=True)
    marks = folder / "marks"
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force", f"--export-marks={marks}"],
        cwd=folder,
        input=b"".join(_commands(commits, heads)),
        check=True,
    )
    hashes = dict(line.split() for line in marks.read_text().splitlines())
    return [hashes[f":{number}"] for number in range(1, len(commits) + 1)]


def _commands(commits: Sequence[Drift], heads: Mapping[str, int]) -> Iterable[bytes]:
    for number, commit in enumerate(commits):
        parents = commit.parents if commit.parents is not None else (number - 1,) * bool(number)
        who = f"An Author <author@example.org> {FIRST_DAY + number * DAY} +0000"
        message = commit.subject.encode()
        yield f"commit refs/made/{number}\nmark :{number + 1}\ncommitter {who}\ndata {len(message)}\n".encode()
        yield message + b"\n"
        for word, parent in zip(("from", *["merge"] * len(parents)), parents, strict=False):
            yield f"{word} :{parent + 1}\n".encode()
        for path, change in commit.changes.items():
            yield from _change(path, change)
    for name, number in heads.items():
        yield f"reset refs/heads/{name}\nfrom :{number + 1}\n\n".encode()


def _change(path: str, change: Change) -> Iterable[bytes]:
    if change is None:
        yield f"D {path}\n".encode()
    elif isinstance(change, Submodule):
        yield f"M 160000 {'1' * 40} {path}\n".encode()
    else:
        mode, data = ("120000", change.target.encode()) if isinstance(change, Link) else ("100644", change)
        yield f"M {mode} inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
