"""One folder of builds for all tests here: as for a user, what one has done the next need not do again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from glmpatch.assets import asset_folder
from glmpatch.building.torch.plan import STEPS
from glmpatch.cli import run
from glmpatch.mpi import FlavourId
from tests.building.torch.standin_support import StandinRepo, make_repository
from tests.mpi_support import ALL_FLAVOURS, ROOTS, installation

_VERSION = "2.13.0"
_REQUIRES = ("cmake", "ninja", "packaging", "setuptools", "wheel")
_RECIPE = """\
url = "{url}"
default = "{version}"
configure = ["setup.py", "build", "--cmake-only"]
build = ["setup.py", "build"]
wheel = ["setup.py", "bdist_wheel", "--dist-dir"]
[environment]
CMAKE_BUILD_TYPE = "Release"
PYTORCH_BUILD_NUMBER = "1"
USE_DISTRIBUTED = "1"
USE_MPI = "1"
[versions."{version}"]
tag = "v{version}"
commit = "{commit}"
python = ">=3.10"
gcc = ">=9"
disk_gb = 0.1
job_gb = 0.01
requires = {requires}
needs = []
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of the command line left."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """With --json, each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """With --json, all of what is shown and not done."""
        return json.loads(self.out)

    def steps(self, event: str) -> list[str]:
        """The steps that have begun (`started`), or were done already (`skipped`)."""
        return [line["step"] for line in self.events if line["event"] == event]


def behind(step: str) -> list[str]:
    """The steps from this one on."""
    return list(STEPS[STEPS.index(step) :])


def write_recipe(folder: Path, repository: StandinRepo, *, url: str | None = None) -> Path:
    """A recipe for the stand-in, and beside it what the project's own recipe pins of the packages that it needs."""
    lists = folder / "constraints"
    lists.mkdir(parents=True)
    pinned = (asset_folder("build") / f"constraints/torch-{_VERSION}-requires.txt").read_text()
    blocks = re.findall(rf"^(?:{'|'.join(_REQUIRES)})==(?:.*\\\n)*.*\n", pinned, re.MULTILINE)
    assert len(blocks) == len(_REQUIRES)
    (lists / f"torch-{_VERSION}-requires.txt").write_text("".join(blocks))
    (lists / f"torch-{_VERSION}-needs.txt").write_text("")
    recipe = folder / "torch.toml"
    recipe.write_text(
        _RECIPE.format(
            url=url or repository.path, version=_VERSION, commit=repository.commit, requires=json.dumps(_REQUIRES)
        )
    )
    return recipe


def make_prefix(folder: Path) -> Path:
    """A virtual environment with nothing but pip, which it borrows: to make one takes long."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")
    return folder


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where the builds are, and a machine that would lead them astray: see `environment`."""

    root: Path
    repository: StandinRepo
    recipe: Path

    @property
    def work(self) -> Path:
        """The folder of the builds."""
        return self.root / "it's a 工作 folder"

    @property
    def prefix(self) -> Path:
        """The environment that they are installed into."""
        return self.root / "prefix"

    @property
    def option(self) -> str:
        """A variable for --set, of a text that a shell would carry out."""
        return f"A_TEXT=it's $(touch {self.root}/carried-out) `touch {self.root}/carried-out` 工作"

    @property
    def kernels(self) -> dict[str, int]:
        """When each of the kernels was compiled."""
        files = sorted(self.work.glob("source/build/CMakeFiles/kernels.dir/aten/*.o"))
        return {file.name: file.stat().st_mtime_ns for file in files}

    def log(self, step: str) -> str:
        """What a step printed."""
        return (self.work / "logs" / f"{step}.log").read_text(encoding="utf-8")

    def arguments(self, *more: str | Path, flavour: FlavourId = "mpich", root: bool = True) -> list[str]:
        """The command line. The options behind those of the workshop win."""
        mpi = ["--mpi", flavour, *(["--mpi-root", str(ROOTS / flavour)] if root else [])]
        folders = ["--recipe", self.recipe, "--work-dir", self.work, "--prefix", self.prefix, "--jobs", "2"]
        return ["build-torch", *mpi, *map(str, folders), *map(str, more)]

    def environment(self, flavour: FlavourId = "mpich") -> dict[str, str]:
        """Variables of a user's, all of which name another MPI than that flavour."""
        other = ROOTS / ALL_FLAVOURS[ALL_FLAVOURS.index(flavour) - 1]
        return {
            "CCACHE_DIR": str(self.root / "ccache"),
            "CMAKE_PREFIX_PATH": str(other),
            "MPI_HOME": str(other),
            "MPI_ROOT": str(other),
            "PATH": f"{other / 'bin'}:{os.environ['PATH']}",
            "STANDIN_TORCH": sysconfig.get_path("purelib"),
            "USE_MPI": "0",
        }

    def start(
        self, *more: str | Path, flavour: FlavourId = "mpich", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """A run in a process of its own, as JSON."""
        return subprocess.Popen(
            [sys.executable, "-m", "glmpatch", *self.arguments(*more, "--json", flavour=flavour)],
            env={**os.environ, **self.environment(flavour), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def at_work(self) -> list[int]:
        """The programs of the builds, orphans among them."""
        mark = os.fsencode(f"GLMPATCH_BUILD={self.work}")
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    @contextmanager
    def in_the_middle(self, *more: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A run that stands still in the middle of the compilation, for a minute."""
        sign = self.work / "source/build/slow.started"
        # What is made slowly is made once more.
        for file in (sign, sign.with_name("slow.cpp")):
            file.unlink(missing_ok=True)
        with self.start(*more, env={"STANDIN_SLOW": "60"}) as process:
            try:
                wait_for(lambda: sign.exists() or process.poll() is not None)
                assert process.poll() is None, process.communicate()
                yield process
            finally:
                process.kill()


def check_built(workshop: Workshop, result: Result, flavour: FlavourId, mpi: Path) -> None:
    """It is there, it was proved, and it is of this MPI alone."""
    assert result.code == 0, result.err
    last = result.events[-1]
    wheel = workshop.work / f"dist/torch-2.13.0+mpi.{flavour}-cp{sys.version_info[0]}{sys.version_info[1]}"
    assert last["event"] == "finished"
    assert last["proved"] is True
    assert last["torch"] == f"2.13.0+mpi.{flavour}"
    assert last["wheel"].startswith(str(wheel))
    assert Path(last["wheel"]).is_file()
    assert 'glmpatch-proof:{"ranks": 2, "dtypes": ["float32", "bfloat16"]}' in workshop.log("verify")
    (found,) = [line for line in workshop.log("configure").splitlines() if line.startswith("MPI: ")]
    assert all(path.startswith(f"{mpi}/lib/libmpi") for path in found.split()[1:]), found


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something has happened. Fails the test if it does not."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


Build = Callable[..., Result]


@pytest.fixture(scope="package")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    root = tmp_path_factory.mktemp("workshop")
    repository = make_repository(root / "upstream")
    make_prefix(root / "prefix")
    workshop = Workshop(root, repository, write_recipe(root / "recipe", repository))
    yield workshop
    left = workshop.at_work()
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


@pytest.fixture
def workshop(_workshop: Workshop) -> Workshop:
    if find_spec("torch") is None:
        pytest.skip("needs torch")
    for flavour in ALL_FLAVOURS:
        installation(flavour)
    return _workshop


@pytest.fixture
def build(workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Build:
    """Run the command line in this process."""

    def build(*more: str | Path, flavour: FlavourId = "mpich", root: bool = True) -> Result:
        for name, value in workshop.environment(flavour).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = run(workshop.arguments(*more, flavour=flavour, root=root))
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return build


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)
