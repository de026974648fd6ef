"""The source that a build starts from: what it is, and one file of it."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glmpatch.building.steps import Command
from glmpatch.building.torch.options import TorchOptions
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.git_commands import RAW, GitFailedError, hardened_git, run_long

# Not part of what is built, and other after each look at it.
_PASSED_OVER = {".git", "__pycache__"}
_BUILT = {"build", "dist"}
_BLOCK = 1 << 20


def source_commands(options: TorchOptions, tree: Path, tool: Path) -> Iterator[Command]:
    """The commands that get the source.

    Args:
        options: What is to be built.
        tree: Where it goes.
        tool: The file `torch_tool.py`.
    """
    if options.source is None:
        yield from _clone(options, str(tree))
        return
    yield Command(("mkdir", "-p", str(tree)))
    if options.source.is_dir():
        # Not the tree itself: it stays as it is.
        yield Command(("cp", "-a", f"{options.source}/.", str(tree)))
        # What was built there is of other paths.
        built = ("build", "dist", "torch/bin", "torch/include", "torch/share")
        yield Command(("rm", "-rf", *(f"{tree}/{name}" for name in built)))
        yield Command(("find", f"{tree}/torch", "(", "-name", "*.so", "-o", "-name", "*.so.*", ")", "-delete"))
        return
    if options.choices.sha256:
        yield Command((str(options.python), str(tool), "checksum", str(options.source), options.choices.sha256))
    yield Command(("tar", "-xf", str(options.source), "-C", str(tree), "--strip-components=1", "--no-same-owner"))


def _clone(options: TorchOptions, tree: str) -> Iterator[Command]:
    """Fetch the exact commit, without history, and its submodules. Each command can be run again where it ended."""
    # A repository on this disk may name others on it as its submodules; one of the network may not.
    local = ("-c", "protocol.file.allow=always") if Path(options.origin).exists() else ()
    told = ("core.hooksPath=/dev/null", "core.autocrlf=false", "advice.detachedHead=false")
    git = ("git", *(word for setting in told for word in ("-c", setting)), *local)
    commit = options.torch.commit
    yield Command(("mkdir", "-p", tree))
    # A git that was killed has left its locks.
    yield Command(("find", tree, "-path", "*/.git/*", "-name", "*.lock", "-delete"))
    yield Command((*git, "init", "--quiet", tree))
    # What the addresses of submodules can be relative to.
    yield Command((*git, "-C", tree, "config", "remote.origin.url", options.origin))
    yield Command((*git, "-C", tree, "fetch", "--depth=1", "--no-tags", "--progress", options.origin, commit))
    yield Command((*git, "-C", tree, "checkout", "--force", "--quiet", "--detach", commit))
    yield Command((*git, "-C", tree, "submodule", "sync", "--quiet", "--recursive"))
    submodules = ("submodule", "update", "--init", "--recursive", "--force", "--depth=1", "--jobs=4", "--progress")
    yield Command((*git, "-C", tree, *submodules))


def source_inputs(options: TorchOptions) -> dict[str, Any]:
    """What tells this source from another: of a tarball its checksum, of a tree the times and sizes of its files."""
    if options.source is None:
        return {"url": options.origin, "commit": options.torch.commit}
    if options.source.is_dir():
        return {"tree": _hash_listing(options.source)}
    return {"sha256": checksum(options.source)}


def checksum(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        UsageError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="give a folder or a tarball with --source") from error
    return digest.hexdigest()


def _hash_listing(tree: Path) -> str:
    digest = hashlib.sha256()
    for path, size, changed in sorted(_listing(tree)):
        digest.update(f"{path}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _listing(tree: Path) -> Iterator[tuple[str, int, int]]:
    for folder, folders, files in os.walk(tree):
        passed_over = _PASSED_OVER | _BUILT if folder == str(tree) else _PASSED_OVER
        folders[:] = [name for name in folders if name not in passed_over]
        for name in files:
            path = Path(folder, name)
            status = path.lstat()
            yield str(path.relative_to(tree)), status.st_size, status.st_mtime_ns


def read_from_source(options: TorchOptions, path: str) -> bytes | None:
    """One file of the source, without getting all of it.

    Args:
        options: What is to be built.
        path: The file, relative to the root of the source.

    Returns:
        Its bytes; None if the source has no such file.

    Raises:
        EnvironmentLacksError: The repository cannot be reached, or has not the commit.
    """
    if options.source is None:
        return _read_remote(options.origin, options.torch.commit, path)
    if options.source.is_dir():
        file = options.source / path
        return file.read_bytes() if file.is_file() else None
    return _read_tarball(options.source, path)


def _read_tarball(file: Path, path: str) -> bytes | None:
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                if member.name.removeprefix("./").partition("/")[2] == path and (opened := archive.extractfile(member)):
                    return opened.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UsageError(f"{file}: {error}", hint="give a folder or a tarball with --source") from error
    return None


def _read_remote(url: str, commit: str, path: str) -> bytes | None:
    """Fetch the commit without its files, then the one file."""
    with tempfile.TemporaryDirectory(prefix="glmpatch-source-") as scratch:
        folder = Path(scratch)
        try:
            git = hardened_git(folder)
            git.init("--quiet", "--bare", "--object-format=sha1")
            git.remote("add", "origin", url)
            run_long(folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--filter=blob:none", "origin", commit)
            if not git.ls_tree("--name-only", commit, "--", path):
                return None
            data: bytes = git.show(f"{commit}:{path}", **RAW)
        except GitFailedError as error:
            raise EnvironmentLacksError(
                f"cannot read {path} from {url}: {error.message}",
                hint="see whether the network is there, or give a clone with --source",
            ) from error
    return data
