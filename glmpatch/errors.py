"""The one family of expected errors: a message, a hint and an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell gets back. Click itself uses 2 for wrong usage."""

    DONE = 0
    CONFLICT = 1
    USAGE = 2
    ENVIRONMENT = 3
    BUILD = 4
    BUG = 70
    INTERRUPTED = 130


class GlmpatchError(Exception):
    """An error that the user can act on. Shown without a traceback.

    Args:
        message: What went wrong and where, in one or a few lines.
        hint: What to do about it.
    """

    exit_code = ExitCode.CONFLICT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TreeError(GlmpatchError):
    """The folder is not one that can be patched or reverted as it stands."""


class UsageError(GlmpatchError):
    """An option, an argument or a patch file of the user's own is wrong."""

    exit_code = ExitCode.USAGE


class EnvironmentLacksError(GlmpatchError):
    """The machine lacks something: git, the network, Python packages, disk."""

    exit_code = ExitCode.ENVIRONMENT


class BuildFailedError(GlmpatchError):
    """A step of a build failed. The hint names its log."""

    exit_code = ExitCode.BUILD
