"""What all tests share: no settings of the machine's, least of all those of its git; and who runs what."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.git_support import commit_all, git, make_repo

settings.register_profile("glmpatch", deadline=None)
settings.load_profile("glmpatch")

# What takes long to make, and is made once by the process that runs all of these. The rest runs wherever there is room.
TOGETHER = ("tests/building/torch/", "tests/building/test_backend.py", "tests/reporting/test_browser.py")

# Behind a shell's `&` it is ignored, and would be by all programs that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Hands out the tests one by one, but for those that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in TOGETHER if nodeid.startswith(group)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together | None:
    """With `--dist loadscope`. A mark would do, but `--dist loadgroup` of xdist 3.8 does not see it with pytest 9.2."""
    return Together(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session", autouse=True)
def neutral_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A git configuration of our own, without an identity, and no variables that steer git or the terminal."""
    config = tmp_path_factory.mktemp("home") / "gitconfig"
    # Otherwise git would make an identity up from the name of the user and of the machine.
    config.write_text("[user]\n\tuseConfigOnly = true\n[init]\n\tdefaultBranch = main\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("GIT_") or name in {"EMAIL", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS"}:
                patch.delenv(name)
        patch.setenv("GIT_PYTHON_REFRESH", "quiet")
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a test puts its tree of upstream."""
    return tmp_path / "ChatGLM-6B"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with two commits, a branch and a tag."""
    repo = make_repo(tmp_path / "source")
    git(repo, "tag", "--annotate", "--message", "first", "v1")
    git(repo, "branch", "old")
    (repo / "README.md").write_text("second\n")
    commit_all(repo, "second")
    return repo
