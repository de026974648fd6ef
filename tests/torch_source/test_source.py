"""PyTorch 2.6.0 itself, as Debian packages it: CMake finds the MPI it is told to, and the patched backend compiles.

Debian's Open MPI is in the root, where CMake looks first of all.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from glmpatch.assets import asset_folder
from glmpatch.building.torch.plan import STEPS
from glmpatch.errors import ExitCode
from glmpatch.patching.model import AlreadyDone, Changed, Options
from glmpatch.patching.series import load_folder
from tests.building.torch.conftest import Result
from tests.torch_source.conftest import PREFIX, SOURCE, WORK, Configure
from tests.torch_source.root import TrixieRoot, debian_archive

pytestmark = pytest.mark.torch_source

BACKEND = "torch/csrc/distributed/c10d/ProcessGroupMPI.cpp"
OBJECT = f"caffe2/CMakeFiles/torch_cpu.dir/__/{BACKEND}.o"
BUILD = f"{WORK}/source/build"
ENVIRONMENT = f"{WORK}/env/bin"
UNTIL_CONFIGURE = list(STEPS[: STEPS.index("configure") + 1])
# Sum, product, minimum and maximum, by their numbers in ReduceOp.
REDUCTIONS = {(number, operation) for number in ("BFloat16", "Half") for operation in "0234"}


@pytest.fixture
def cache(trixie: TrixieRoot, configured: Result) -> dict[str, str]:  # noqa: ARG001 - comes first
    """What CMake has found."""
    text = trixie.path(f"{BUILD}/CMakeCache.txt").read_text()
    return dict(re.findall(r"^(\w+):[A-Z]+=(.*)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def compiled(trixie: TrixieRoot, configured: Result) -> str:  # noqa: ARG001 - comes first
    """The names in the object of the patched backend."""
    trixie.run("cmake", "--build", BUILD, "--target", OBJECT, path=ENVIRONMENT)
    return symbols(trixie, f"{BUILD}/{OBJECT}")


def symbols(trixie: TrixieRoot, file: str) -> str:
    return trixie.run("nm", "--demangle", file)


def reductions(names: str) -> set[tuple[str, str]]:
    """The dtypes and operations that an object reduces by itself."""
    return set(re.findall(r" t .*\bcombine<c10::(\w+), \(c10d::ReduceOp::RedOpType\)(\d)>\(", names))


def test_proc_is_mounted_inside_alone(trixie: TrixieRoot) -> None:
    assert "MemTotal" in trixie.run("cat", "/proc/meminfo")
    assert list(trixie.path("/proc").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "archive"),
    [
        ("sources.list", "# deb http://a/debian x\ndeb [arch=amd64] http://b/debian/ x main\n", "http://b/debian"),
        (
            "sources.list.d/x.sources",
            "URIs: http://a/debian-security\nURIs: https://b/c/debian\n",
            "https://b/c/debian",
        ),
        ("sources.list.d/x.disabled", "deb http://a/debian x main\n", "http://deb.debian.org/debian"),
    ],
)
def test_the_archive_is_that_of_the_machine(tmp_path: Path, name: str, text: str, archive: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert debian_archive(tmp_path) == archive


def test_intel_mpi_of_the_prefix_is_found(trixie: TrixieRoot, configured: Result, cache: dict[str, str]) -> None:
    assert configured.steps("started") == UNTIL_CONFIGURE
    log = trixie.path(f"{WORK}/logs/configure.log").read_text()
    assert re.search(r"^--\s+USE_MPI\s*: ON$", log, re.MULTILINE)
    assert f"\nMPI: {PREFIX}/lib/libmpi.so " in log
    assert cache["MPI_mpi_LIBRARY"] == f"{PREFIX}/lib/libmpi.so"


def test_another_mpi_was_there_to_be_found(trixie: TrixieRoot, cache: dict[str, str]) -> None:
    assert "Open MPI" in trixie.run("mpirun", "--allow-run-as-root", "--version")
    assert trixie.path("/usr/lib/x86_64-linux-gnu/openmpi/lib/libmpi.so").exists()
    assert "/usr/" not in cache["MPI_CXX_COMPILER_INCLUDE_DIRS"]


@pytest.mark.usefixtures("configured")
def test_the_backend_is_patched(trixie: TrixieRoot) -> None:
    published, original, patched = (
        trixie.path(f"{folder}/{BACKEND}").read_bytes() for folder in (SOURCE, f"{WORK}/originals", f"{WORK}/source")
    )
    assert original == published
    assert b"at::kBFloat16" not in original
    assert b"at::kBFloat16" in patched
    (patch,) = load_folder(asset_folder("patches") / "pytorch", Options()).patches
    (edit,) = patch.edits
    assert edit.path == BACKEND
    changed = edit.transform(original)
    assert isinstance(changed, Changed)
    assert changed.data == patched
    assert isinstance(edit.transform(patched), AlreadyDone)


def test_the_patched_backend_compiles(compiled: str) -> None:
    assert reductions(compiled) == REDUCTIONS
    assert " U MPI_Op_create\n" in compiled
    # Names that Open MPI's header would have brought in.
    assert "ompi_" not in compiled


@pytest.mark.usefixtures("compiled")
def test_what_it_reduces_is_the_patch(trixie: TrixieRoot) -> None:
    """The compiler's same command on the file as it was. It includes what was generated for the patched one."""
    commands = json.loads(trixie.path(f"{BUILD}/compile_commands.json").read_text())
    (entry,) = [entry for entry in commands if entry["file"] == f"{WORK}/source/{BACKEND}"]
    unpatched = "/tmp/unpatched.o"  # noqa: S108 - that of the root
    places = {entry["file"]: f"{WORK}/originals/{BACKEND}", OBJECT: unpatched}
    trixie.run(*(places.get(word, word) for word in shlex.split(entry["command"])), cwd=entry["directory"])
    names = symbols(trixie, unpatched)
    assert reductions(names) == set()
    assert "MPI_Op_create" not in names
    assert " U MPI_Allreduce\n" in names


def test_again_does_nothing(trixie: TrixieRoot, configure: Configure, configured: Result) -> None:
    file = trixie.path(f"{BUILD}/CMakeCache.txt")
    before = file.stat().st_mtime_ns
    begin = time.monotonic()
    again = configure()
    seconds = time.monotonic() - begin
    assert again.code == 0, again.err
    assert again.steps("started") == UNTIL_CONFIGURE[:1]
    assert again.steps("skipped") == UNTIL_CONFIGURE[1:]
    assert file.stat().st_mtime_ns == before
    assert seconds < sum(line["seconds"] for line in configured.events if line["event"] == "ended") / 2


def test_no_mpi_is_an_error(trixie: TrixieRoot, configure: Configure) -> None:
    work = "/opt/without"
    # Of an earlier run. With it there, CMake would not look again.
    shutil.rmtree(trixie.path(f"{work}/source/build"), ignore_errors=True)
    without = configure("--set", "CMAKE_DISABLE_FIND_PACKAGE_MPI=1", work=work)
    assert without.code == ExitCode.BUILD
    assert "CMake found no MPI: USE_MPI is OFF" in without.err
    # Of CMake itself no complaint: it goes on without.
    assert "Build files have been written" in trixie.path(f"{work}/logs/configure.log").read_text()
