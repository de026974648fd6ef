"""A bare copy of upstream in the user's cache: fetched once, then kept up to date, and made anew when it is broken.

Every copy has a lock: it is shared while the copy is read, and held by one alone that changes it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from glmpatch.credentials import without_credentials
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.git_commands import RAW, GitFailedError, hardened_git, run_long, safe_url
from glmpatch.locking import locked
from glmpatch.objects import BrokenMirrorError, Objects
from glmpatch.process import SilentError

if TYPE_CHECKING:  # `git_commands` must be the first to import it
    from git import Git

# Where the remote's HEAD goes. The mirror's own HEAD points there.
_HEAD = "refs/glmpatch/HEAD"
# The remote's HEAD is asked for by a pattern, because there may be none, and only a pattern may match nothing.
_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", f"+HEAD*:{_HEAD}*")
# Commits that no branch holds.
_KEPT = "refs/glmpatch/kept"
_FULL_HASH = re.compile("[0-9a-f]{40}")
_HASH = re.compile("[0-9a-fA-F]{4,40}")


class Mirror:
    """A copy of one upstream. `open_mirror` makes it.

    Attributes:
        url: Where it comes from, without credentials.
        folder: Where it is.
        objects: What is in it. A `BrokenMirrorError` of theirs is mended with `rebuild`.
    """

    def __init__(self, source: str, *, offline: bool, silence: float, on_wait: Callable[[], None]) -> None:
        self.url = without_credentials(source)
        self.folder = user_cache_path("glmpatch") / "mirrors" / _name(self.url)
        self.objects = Objects(self.folder)
        self._source = source
        self._offline = offline
        self._silence = silence
        self._on_wait = on_wait
        self._reading = ExitStack()

    def refresh(self) -> None:
        """Fetch what is new; offline, see that there is something to read. From then on it can be read.

        Raises:
            EnvironmentLacksError: Upstream cannot be reached or is empty, the cache cannot be written to, or there is
                no mirror to be used offline.
        """
        if not self._offline:
            self._change(self._update)
            return
        if not self.folder.exists():
            raise _fetch_it(f"there is no mirror of {self.url}")
        self._read()
        try:
            self._check(self.objects)
        except BrokenMirrorError as error:
            raise _fetch_it(error.message) from error

    def ensure(self, ref: str) -> str:
        """The full hash of the commit that a branch, a tag or a hash means.

        A full hash that no branch holds, as when upstream was force-pushed, is fetched if the server allows it.

        Raises:
            UsageError: There is no such commit, branch or tag. An expression, such as `main~2`, is none.
            EnvironmentLacksError: It was not fetched.
        """
        commit = self._find(ref)
        if commit:
            return commit
        if not _FULL_HASH.fullmatch(ref):
            raise UsageError(
                f"{self.url} has no commit, branch or tag {ref!r}", hint="name a branch, a tag or the hash of a commit"
            )
        if self._offline:
            raise _fetch_it(f"the mirror of {self.url} has no commit {ref}")
        self._change(lambda: self._fetch_alone(ref))
        return ref

    def rebuild(self) -> None:
        """Throw the mirror away and fetch all anew, but for what `ensure` has fetched.

        Raises:
            EnvironmentLacksError: It was not fetched; then the old one is still there.
        """
        if self._offline:
            raise _fetch_it(f"the mirror of {self.url} is broken: {self.folder}")
        self._change(self._replace)

    def close(self) -> None:
        """End the git processes, and let others change the mirror."""
        self.objects.close()
        self._reading.close()

    def _find(self, ref: str) -> str | None:
        """The commit that a ref means, if there is one. No expression, and none of git's own names, such as HEAD."""
        git = _git(self.folder)
        objects = [ref] if _HASH.fullmatch(ref) else []
        # A branch can be called like a full hash, but that means the commit.
        if not _FULL_HASH.fullmatch(ref):
            places = (f"refs/heads/{ref}", f"refs/tags/{ref}")
            output = os.fsdecode(git.for_each_ref("--format=%(refname) %(objectname)", *places, **RAW))
            named = dict(line.split(" ") for line in output.split("\n")[:-1])
            objects[:0] = [named[place] for place in places if place in named]
        for name in objects:
            with suppress(GitFailedError):
                return str(git.rev_parse("--verify", "--quiet", f"{name}^{{commit}}"))
        return None

    def _read(self) -> None:
        self._reading.enter_context(self._lock(shared=True))

    def _change(self, action: Callable[[], None]) -> None:
        """Change the mirror while nobody reads it, then read it again, even if the change failed."""
        self.close()
        failure: EnvironmentLacksError | None = None
        with self._lock(shared=False):
            try:
                action()
            except EnvironmentLacksError as error:
                failure = error
        self._read()
        if isinstance(failure, (GitFailedError, BrokenMirrorError, SilentError)):
            raise self._unreachable(failure) from failure
        if failure:
            raise failure

    def _unreachable(self, error: EnvironmentLacksError) -> EnvironmentLacksError:
        hint = "check the network, or name another repository with --upstream"
        if isinstance(error, GitFailedError) and error.hint:
            hint = error.hint
        with suppress(BrokenMirrorError):
            self.objects.check()
            hint += ", or use the mirror as it is with --offline"
        return EnvironmentLacksError(f"cannot reach {self.url}: {without_credentials(error.message)}", hint=hint)

    @contextmanager
    def _lock(self, *, shared: bool) -> Iterator[None]:
        place = self.folder.parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            with locked(self.folder.with_suffix(".lock"), self._on_wait, shared=shared):
                yield
        except OSError as error:
            raise EnvironmentLacksError(
                f"cannot use the cache in {place}: {error.strerror}",
                hint="name another folder with the variable XDG_CACHE_HOME",
            ) from error

    def _update(self) -> None:
        if self.folder.is_dir():
            # What a killed fetch has left; all others would wait for the lock.
            for leftover in (*self.folder.rglob("*.lock"), *(self.folder / "objects").rglob("tmp_*")):
                _remove(leftover)
            # Whether it is the mirror that is broken, or the server that is away, the second try will show.
            with suppress(GitFailedError, BrokenMirrorError):
                self._fetch(self.folder, *_REFSPECS)
                self._check(self.objects)
                return
        self._replace()

    def _replace(self) -> None:
        """Put a new mirror in the place of what is there, once it is complete."""
        new = self.folder.with_suffix(".new")
        _remove(new)  # of a killed run
        try:
            new.mkdir()
            git = _git(new)
            git.init("--quiet", "--bare", "--template=", "--object-format=sha1")
            git.symbolic_ref("HEAD", _HEAD)
            self._fetch(new, *_REFSPECS)
            self._check(Objects(new))
            _remove(self.folder)
            new.rename(self.folder)
        finally:
            _remove(new)

    def _fetch_alone(self, commit: str) -> None:
        try:
            self._fetch(self.folder, f"+{commit}:{_KEPT}/{commit}")
        except GitFailedError as error:
            raise EnvironmentLacksError(
                f"{self.url} does not give commit {commit}: {without_credentials(error.message)}",
                hint="name a clone that has it with --upstream",
            ) from error

    def _fetch(self, folder: Path, *refspecs: str) -> None:
        # Not --atomic: a branch `dev/x` could not take the place of a branch `dev`, which must be pruned before.
        options = ["--prune", "--force", "--no-tags", "--progress", "--update-shallow"]
        if (folder / "shallow").exists():
            options.append("--unshallow")  # upstream itself was, and may no longer be
        # The source is named here and nowhere in the configuration: it may hold a password.
        arguments = ("--git-dir=.", "fetch", *options, "--", self._source, *refspecs)
        run_long(folder, *arguments, silence=self._silence)

    def _check(self, objects: Objects) -> None:
        objects.check()
        if not objects.heads():
            raise EnvironmentLacksError(f"{self.url} has no branch", hint="name another repository with --upstream")


@contextmanager
def open_mirror(
    url: str, *, offline: bool = False, silence: float = 60.0, on_wait: Callable[[], None] = lambda: None
) -> Iterator[Mirror]:
    """The mirror of a repository, brought up to date. Until the end of the block nobody else changes it.

    Args:
        url: A URL, or the path of a local repository.
        offline: Take the mirror as it is.
        silence: After how many seconds without a word from the server to give up.
        on_wait: Called when another process uses the mirror, before waiting for it.

    Raises:
        UsageError: `url` is unsafe.
        EnvironmentLacksError: As in `Mirror.refresh`, or there is no git.
    """
    with closing(Mirror(safe_url(url), offline=offline, silence=silence, on_wait=on_wait)) as mirror:
        mirror.refresh()
        yield mirror


def _git(folder: Path) -> Git:
    """Git commands in a mirror. It is named, so that git looks for no other one when it is broken."""
    git = hardened_git(folder)
    git.update_environment(GIT_DIR=str(folder), GIT_NO_REPLACE_OBJECTS="1")
    return git


def _fetch_it(lack: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(lack, hint="run without --offline, to fetch it")


def _name(url: str) -> str:
    """The name of the folder: one to read, and one that no other URL has."""
    readable = re.sub("[^A-Za-z0-9.]+", "-", url.partition("://")[2] or url)[-60:].strip("-.")
    return f"{readable}-{sha256(os.fsencode(url.rstrip('/'))).hexdigest()[:12]}.git"


def _remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
