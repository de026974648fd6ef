"""Git, carefully: clone upstream, read commits, record new ones.

Repositories are untrusted: hooks, file-system monitors, submodules and exotic transports are off in every command.
GitPython runs them, but for those that can take long: these are stopped, with all their children, at Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from glmpatch.errors import EnvironmentLacksError, TreeError, UsageError
from glmpatch.process import CommandFailedError, stream

# GitPython looks for git when it is imported, and fails without it. `_hardened` says so in our own words.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from git import Git, GitCommandError

_SAFE_OPTIONS = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    "gc.auto=0",
    "log.showSignature=false",
]
_SAFE_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
}
# Set inside a hook, they would point git at another repository than the one we name.
_MISLEADING = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
_BRANCH = "glmpatch"
# Where new commits wait until HEAD moves. One name, so that a second run takes over what a killed one has left.
_WAITING = "refs/worktree/glmpatch"
_FALLBACK_IDENTITY = "glmpatch <glmpatch@localhost>"
# The attributes under which git keeps the line endings of a file that are the same in its index and working tree.
_KEEPING_ENDINGS = {"attr/", "attr/text=auto"}
# Keywords of GitPython: the output as bytes, all of them.
_RAW: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False}


class GitFailedError(EnvironmentLacksError):
    """Git could not do what it was asked for."""


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit to be made: its message, and the bytes in the working tree of each file that it changes."""

    message: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class TrailedCommit:
    """A commit whose message carries a trailer, and the values of that trailer."""

    commit: str
    values: tuple[str, ...]


class Checkout:
    """A working tree of a git repository: an ordinary clone, a linked worktree or a submodule.

    Attributes:
        root: The top folder of the working tree.
        head: The hash of the commit that is checked out.
        private_folder: A folder for our own data, inside the git folder. It may not exist yet.

    Raises:
        TreeError: There is no commit yet.
        EnvironmentLacksError: There is no git, or it refuses this folder, or takes another one for the top.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._git = _hardened(root)
        try:
            top, own, head = self._git.rev_parse("--show-toplevel", "--git-path", "glmpatch", "HEAD").split("\n")
        except GitFailedError as error:
            if "ambiguous argument 'HEAD'" in error.message:
                raise TreeError(f"{root} has no commit yet", hint="commit its files first") from error
            raise EnvironmentLacksError(f"git cannot work in {root}: {error.message}") from error
        if not Path(top).samefile(root):
            raise EnvironmentLacksError(
                f"git takes {top} for the working tree of {root}", hint=f"mend or remove {root / '.git'}"
            )
        self.head = head
        self.private_folder = root / own

    def tracked(self) -> list[str]:
        """The POSIX paths of all files that git tracks here."""
        return _split(self._git.ls_files("-z"))

    def committed(self, commit: str) -> list[str]:
        """The POSIX paths of all files of a commit."""
        return _split(self._git.ls_tree("-r", "-z", "--name-only", "--full-tree", commit))

    def dirty(self) -> set[str]:
        """The tracked files that differ from HEAD, in the working tree or in the index."""
        status = self._git.status(
            "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=all"
        )
        return {entry[3:] for entry in _split(status)}

    def read(self, commit: str, path: str) -> bytes | None:
        """The bytes that a checkout of `commit` puts at `path`, or None where it has no such file."""
        try:
            return bytes(self._git.cat_file("--filters", f"{commit}:{path}", **_RAW))
        except GitFailedError:
            return None

    def changed_paths(self, commit: str) -> list[str]:
        """The paths in which a commit differs from its parent; none for a merge."""
        return _split(
            self._git.diff_tree("--root", "--no-commit-id", "-r", "-z", "--no-renames", "--name-only", commit)
        )

    def trailed(self, trailer: str) -> list[TrailedCommit]:
        """The commits behind HEAD that carry `trailer`, newest first."""
        output = str(
            self._git.log(
                "--basic-regexp",
                f"--grep=^{trailer}: ",
                f"--format=%H%x00%(trailers:key={trailer},valueonly,separator=%x00)%x1e",
            )
        )
        found: list[TrailedCommit] = []
        for record in output.split("\x1e"):
            commit, *values = record.strip("\n").split("\0")
            if any(values):
                found.append(TrailedCommit(commit, tuple(values)))
        return found

    def record(self, commits: Sequence[NewCommit]) -> list[str]:
        """Create the commits, one upon the other, upon HEAD. HEAD, index and working tree stay as they are.

        Returns:
            The hashes, in order.
        """
        try:
            with _spooled(self._import_stream(commits)) as commands, tempfile.TemporaryDirectory() as folder:
                marks = Path(folder, "marks")
                self._git.fast_import("--quiet", "--force", f"--export-marks={marks}", istream=commands)
                hashes = dict(line.split() for line in marks.read_text().splitlines())
            return [hashes[f":{mark}"] for mark, _ in enumerate(commits, start=1)]
        finally:
            self._git.update_ref("-d", _WAITING)

    def move_head(self, commit: str, paths: Sequence[str]) -> None:
        """Make `commit` the checked-out commit; the working tree must already hold its files at `paths`.

        The index follows at `paths` alone: what the user has staged elsewhere stays staged. HEAD moves last, and only
        if nobody else has moved it.
        """
        self._git.reset("--quiet", commit, "--", *paths)
        self._git.update_ref("-m", "glmpatch", "HEAD", commit, self.head)
        self.head = commit

    def _import_stream(self, commits: Sequence[NewCommit]) -> bytes:
        """The commits in the language of `git fast-import`: one process, whatever their number."""
        identity = self._identity()
        modes = self._modes(sorted({path for commit in commits for path in commit.files}))
        commands = bytearray()
        for mark, commit in enumerate(commits, start=1):
            commands += f"commit {_WAITING}\nmark :{mark}\nauthor {identity}\ncommitter {identity}\n".encode()
            commands += _data(commit.message.encode())
            if mark == 1:
                commands += f"from {self.head}\n".encode()
            for path, data in commit.files.items():
                mode, verbatim = modes[path]
                blob = "inline" if verbatim else self._clean(path, data)
                commands += f"M {mode} {blob} ".encode() + _quoted(path) + b"\n"
                if verbatim:
                    commands += _data(data)
        return bytes(commands)

    def _modes(self, paths: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """For each path its mode, and whether git stores the bytes of the working tree as they are."""
        attributes = _split(self._git.check_attr("-z", "filter", "ident", "working-tree-encoding", "--", *paths))
        filtered = {
            path for path, value in zip(attributes[0::3], attributes[2::3], strict=True) if value != "unspecified"
        }
        modes: dict[str, tuple[str, bool]] = {}
        for entry in _split(self._git.ls_files("-z", "--stage", "--eol", "--", *paths)):
            staged, endings, path = entry.split("\t", 2)
            in_index, in_worktree, attribute, *_ = endings.split()
            keeps_endings = in_index[2:] == in_worktree[2:] and attribute in _KEEPING_ENDINGS
            modes[path] = staged.partition(" ")[0], keeps_endings and path not in filtered
        return modes

    def _clean(self, path: str, data: bytes) -> str:
        """Store `data` as `git add` would, with its filters and line endings; the hash of the blob."""
        with _spooled(data) as content:
            return str(self._git.hash_object("-w", "--stdin", "--path", path, istream=content))

    def _identity(self) -> str:
        """The user's identity and the time, as git writes it; our own where the user has none."""
        try:
            return str(self._git.var("GIT_COMMITTER_IDENT"))
        except GitFailedError:
            return f"{_FALLBACK_IDENTITY} {int(time.time())} +0000"


def open_checkout(root: Path) -> Checkout | None:
    """The git working tree whose top folder is `root`; None where it is a plain folder.

    A plain folder inside somebody's repository is a plain folder.
    """
    return Checkout(root) if (root / ".git").exists() else None


def merge(current: bytes, base: bytes, other: bytes) -> bytes | None:
    """Three-way merge of the bytes of one file; None where the changes meet.

    Raises:
        EnvironmentLacksError: There is no git.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ("current", "base", "other")
        for name, data in zip(names, (current, base, other), strict=True):
            Path(folder, name).write_bytes(data)
        git = _hardened(Path(folder))
        try:
            return bytes(git.merge_file("-p", *names, **_RAW))
        except GitFailedError:
            return None


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
    source = _safe_url(url)
    if ref.startswith(("-", "+", "^")) or any(sign in ref for sign in ":*? "):
        raise UsageError(f"{ref!r} is not a commit, branch or tag")
    target = target.resolve()
    if target == Path.cwd():
        raise UsageError(f"cannot clone into {target} from inside it", hint="name it from the folder above")
    with _temporary_sibling(target) as folder:
        git = _hardened(folder)
        git.init("--quiet", "--template=")
        git.remote("add", "origin", source)
        commit = _fetch(git, folder, source, ref)
        _run_long(folder, "checkout", "--quiet", "-B", _BRANCH, commit)
        accept(folder)
        folder.rename(target)


def _fetch(git: Git, folder: Path, source: str, ref: str) -> str:
    """Fetch `ref`, shallow if the server lets us; the hash of its commit."""
    try:
        _run_long(folder, "fetch", "--quiet", "--no-tags", "--depth=1", "origin", ref)
        return str(git.rev_parse("--verify", "FETCH_HEAD^{commit}"))
    except GitFailedError:
        pass  # no such ref, an abbreviated hash, a server that hides commits, or no server at all: the next one tells
    try:
        _run_long(folder, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    except GitFailedError as error:
        raise EnvironmentLacksError(
            f"cannot fetch {source}: {error.message}",
            hint="check the network, or name a mirror or a local clone with --upstream",
        ) from error
    for name in (f"refs/remotes/origin/{ref}", f"refs/tags/{ref}", ref):
        with suppress(GitFailedError):
            return str(git.rev_parse("--verify", "--quiet", f"{name}^{{commit}}"))
    raise UsageError(f"{source} has no commit, branch or tag {ref!r}", hint="choose another --ref")


class _SpeakingGit(Git):
    """GitPython's commands, with failures in our own words."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Run a command.

        Raises:
            GitFailedError: It ended with a code other than zero.
        """
        try:
            return super().execute(*arguments, **options)
        except GitCommandError as error:
            raise GitFailedError(_reason(str(error.stderr).replace("stderr: ", "").strip(" '\n"))) from error


def _hardened(folder: Path) -> Git:
    """Git commands in `folder`, with everything off that a hostile repository could use."""
    if shutil.which("git") is None:
        raise EnvironmentLacksError("git is not installed", hint="install git and put it on PATH")
    for name in _MISLEADING:
        os.environ.pop(name, None)
    git = _SpeakingGit(folder)
    git.set_persistent_git_options(c=_SAFE_OPTIONS)
    git.update_environment(**_SAFE_ENVIRONMENT)
    return git


def _run_long(folder: Path, *arguments: str) -> None:
    """Run a hardened git command that can take long. At an exception it is stopped, with all its children."""
    options = [part for option in _SAFE_OPTIONS for part in ("-c", option)]
    try:
        for _ in stream(["git", *options, *arguments], cwd=folder, env={**os.environ, **_SAFE_ENVIRONMENT}):
            pass
    except CommandFailedError as error:
        raise GitFailedError(_reason(error.tail)) from error


def _safe_url(url: str) -> str:
    """The URL as git gets it: a local path made absolute.

    Raises:
        UsageError: It could be taken for an option, or runs a command (`ext::`).
    """
    if url.startswith(("-", "ext:", "fd:")) or "::" in url.split("/", 1)[0]:
        raise UsageError(f"{url!r} is not a URL that upstream is cloned from", hint="use https, ssh or a path")
    local = Path(url)
    return str(local.resolve()) if local.exists() else url


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


@contextmanager
def _spooled(data: bytes) -> Iterator[BinaryIO]:
    """`data` as a file that a child can read from: GitPython takes no bytes as input."""
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            file.write(data)
        except OSError as error:
            raise EnvironmentLacksError(f"cannot write to {tempfile.gettempdir()}: {error.strerror}") from error
        file.seek(0)
        yield file


def _data(data: bytes) -> bytes:
    return f"data {len(data)}\n".encode() + data + b"\n"


def _quoted(path: str) -> bytes:
    """A path as `git fast-import` reads it, whatever is in it."""
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'


def _split(output: str) -> list[str]:
    return [field for field in output.split("\0") if field]


def _reason(output: str) -> str:
    """The last thing that git said."""
    lines = [line.strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line.startswith("fatal:")), lines[-1] if lines else "unknown")
