"""The root, glmpatch in it as users install it, and PyTorch configured there, all of which the tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from glmpatch.locking import locked
from tests.building.torch.conftest import Result
from tests.torch_source.root import TrixieRoot, why_not

SOURCE = "/src/pytorch"
PREFIX = "/opt/torch"
WORK = "/opt/work"
_GLMPATCH = "/opt/glmpatch"
_VARIABLES = ("USE_SYSTEM_LIBS=ON", "USE_FBGEMM=OFF", "USE_ITT=OFF")

Configure = Callable[..., Result]


@pytest.fixture(scope="package")
def trixie(request: pytest.FixtureRequest) -> Iterator[TrixieRoot]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.flush()

    named = os.environ.get("GLMPATCH_TORCH_ROOT")
    folder = Path(named).absolute() if named else platformdirs.user_cache_path("glmpatch") / "torch-source"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", lambda: tell(f"{folder}: wait for another run")):
        root = TrixieRoot(folder)
        root.prepare(tell)
        yield root


@pytest.fixture(scope="package")
def configure(trixie: TrixieRoot, tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """Run the command line in the root, from the wheel of this checkout, until PyTorch is configured."""
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True)
    (wheel,) = built.glob("*.whl")
    inside = shutil.copy(wheel, trixie.path("/tmp"))  # noqa: S108 - that of the root
    trixie.run("python3", "-m", "venv", _GLMPATCH)
    pip = (f"{_GLMPATCH}/bin/pip", "install", "--quiet", "--disable-pip-version-check")
    # First what it needs, then itself, whatever was there: the version does not change with each edit.
    for more in ((), ("--force-reinstall", "--no-deps")):
        trixie.run(*pip, *more, f"/{Path(inside).relative_to(trixie.root)}")

    def configure(*more: str, work: str = WORK) -> Result:
        mpi = ("--mpi", "intel", "--torch-version", "2.6.0")
        folders = ("--source", SOURCE, "--prefix", PREFIX, "--work-dir", work)
        variables = [word for variable in _VARIABLES for word in ("--set", variable)]
        words = ("build-torch", *mpi, *folders, *variables, "--until", "configure", "--json")
        done = trixie.call(f"{_GLMPATCH}/bin/glmpatch", *words, *more)
        return Result(done.returncode, done.stdout, done.stderr)

    return configure


@pytest.fixture(scope="package")
def configured(configure: Configure) -> Result:
    """A run from nothing but the root."""
    done = configure("--fresh")
    assert done.code == 0, done.err
    return done
