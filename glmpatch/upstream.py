"""Clones upstream, all or nothing."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glmpatch.credentials import without_credentials
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.git_commands import GitFailedError, hardened_git, run_long, safe_url

if TYPE_CHECKING:  # `git_commands` must be the first to import it
    from git import Git

_BRANCH = "glmpatch"
_FULL_HASH = re.compile("[0-9a-f]{40}")


def clone(url: str, ref: str, target: Path, *, accept: Callable[[Path], None]) -> None:
    """Clone upstream at one commit into `target`, all or nothing.

    The commit alone is fetched; where the server does not offer that, all branches are. It is checked out as the
    branch `glmpatch`.

    Args:
        url: A URL, or the path of a local repository.
        ref: A commit, branch or tag.
        target: A folder that does not exist, or an empty one.
        accept: Called with the folder before it gets its name; raises to refuse it.

    Raises:
        UsageError: `url` or `ref` is unsafe, or there is no such `ref`.
        EnvironmentLacksError: There is no git, the repository cannot be reached, or `target` cannot be made.
    """
    source = safe_url(url)
    if ref.startswith(("-", "+", "^")) or any(sign in ref for sign in ":*? "):
        raise UsageError(f"{ref!r} is not a commit, branch or tag")
    target = target.resolve()
    if target == Path.cwd():
        raise UsageError(f"cannot clone into {target} from inside it", hint="name it from the folder above")
    with _temporary_sibling(target) as folder:
        git = hardened_git(folder)
        git.init("--quiet", "--template=", "--object-format=sha1")
        commit = _fetch(git, folder, source, ref)
        # No file is to hold a password.
        git.remote("add", "origin", without_credentials(source))
        run_long(folder, "checkout", "--quiet", "-B", _BRANCH, commit)
        accept(folder)
        folder.rename(target)


def _fetch(git: Git, folder: Path, source: str, ref: str) -> str:
    """Fetch `ref`, shallow if the server lets us; the hash of its commit."""
    branches = "+refs/heads/*:refs/remotes/origin/*"
    fetch = ("-c", f"remote.origin.url={source}", "-c", f"remote.origin.fetch={branches}", "fetch", "--quiet")
    shown = without_credentials(source)
    try:
        run_long(folder, *fetch, "--no-tags", "--depth=1", "origin", ref)
        return str(git.rev_parse("--verify", "FETCH_HEAD^{commit}"))
    except GitFailedError:
        pass  # no such ref, an abbreviated hash, a server that hides commits, or no server at all: the next one tells
    try:
        run_long(folder, *fetch, "--tags", "origin", branches)
    except GitFailedError as error:
        raise EnvironmentLacksError(
            f"cannot fetch {shown}: {without_credentials(error.message)}",
            hint=error.hint or "check the network, or name a mirror or a local clone with --upstream",
        ) from error
    # A branch can be called like a full hash, but that means the commit.
    places = [] if _FULL_HASH.fullmatch(ref) else [f"refs/remotes/origin/{ref}", f"refs/tags/{ref}"]
    for name in (*places, ref):
        with suppress(GitFailedError):
            return str(git.rev_parse("--verify", "--quiet", f"{name}^{{commit}}"))
    raise UsageError(f"{shown} has no commit, branch or tag {ref!r}", hint="choose another --ref")


@contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    """A folder next to `target`, on the same file system, that is gone in the end if it was not renamed.

    So are the folders above it that had to be made, if nothing is in them.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    folder = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".glmpatch", dir=target.parent))
        folder.chmod(0o755)
        yield folder
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot clone into {target}: {error.strerror}", hint="name a folder that does not exist yet"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
