"""Git commands that a hostile repository cannot turn against the user: all that the other modules run.

Hooks, file-system monitors, submodules and exotic transports are off in every command. GitPython runs them, but for
those that can take long: these are stopped, with all their children, at Ctrl-C.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from glmpatch.credentials import without_credentials
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.process import CommandFailedError, stream

# GitPython looks for git when it is imported, and fails without it. `hardened_git` says so in our own words.
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
    "SSH_ASKPASS_REQUIRE": "never",  # nor has ssh a terminal to ask at, in the session of its own that `stream` starts
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
# How git tells to trust a repository of another user: the same in every version, unlike what it calls the fault.
_TRUST = re.compile("git config --global --add safe.directory .*")
# Keywords of GitPython: the output as bytes, all of them.
RAW: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False}


class GitFailedError(EnvironmentLacksError):
    """Git could not do what it was asked for."""


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
            raise _failure(str(error.stderr).strip().removeprefix("stderr: '").removesuffix("'")) from error


def hardened_git(folder: Path) -> Git:
    """Git commands in `folder`, with everything off that a hostile repository could use."""
    if shutil.which("git") is None:
        raise EnvironmentLacksError("git is not installed", hint="install git and put it on PATH")
    for name in _MISLEADING:
        os.environ.pop(name, None)
    git = _SpeakingGit(folder)
    git.set_persistent_git_options(c=_SAFE_OPTIONS)
    git.update_environment(**_SAFE_ENVIRONMENT)
    return git


def run_long(folder: Path, *arguments: str, silence: float | None = None) -> None:
    """Run a hardened git command that can take long. At an exception it is stopped, with all its children.

    Raises:
        GitFailedError: It ended with a code other than zero.
        SilentError: It was stopped, because it printed nothing for `silence` seconds.
    """
    command = ["git", *(part for option in _SAFE_OPTIONS for part in ("-c", option)), *arguments]
    try:
        for _ in stream(command, cwd=folder, env={**os.environ, **_SAFE_ENVIRONMENT}, silence=silence):
            pass
    except CommandFailedError as error:
        raise _failure(error.tail) from error


def safe_url(url: str) -> str:
    """The URL as git gets it: a local path made absolute.

    Raises:
        UsageError: It could be taken for an option, or runs a command (`ext::`).
    """
    if url.startswith(("-", "ext:", "fd:")) or "::" in url.split("/", 1)[0]:
        shown = without_credentials(url)
        raise UsageError(f"{shown!r} is not a URL that upstream is cloned from", hint="use https, ssh or a path")
    local = Path(url)
    return str(local.resolve()) if local.exists() else url


def split_fields(output: str) -> list[str]:
    """The fields of an output that `-z` asked for."""
    return [field for field in output.split("\0") if field]


def _failure(output: str) -> GitFailedError:
    """What git said last; or first, where it does not trust a repository: what follows sounds like another fault."""
    lines = [line.strip() for line in output.splitlines()]
    fatal = [line for line in lines if line.startswith("fatal:")] or lines[-1:] or ["unknown"]
    if trust := _TRUST.search(output):
        return GitFailedError(fatal[0], hint=f"if you trust it: {trust.group()}")
    return GitFailedError(fatal[-1])
