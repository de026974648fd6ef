"""Looks, before the long part, at all that the build of the backend needs, and tells everything that is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from glmpatch.building.packages import mpi_packages, other_mpis
from glmpatch.building.problem import Problem, pip
from glmpatch.building.toolchain import AUTOLOAD, Compiler
from glmpatch.mpi.flavour import Flavour, Search
from glmpatch.process import CommandFailedError, stream

# Since then, PyTorch asks its environment for backends when it is imported.
_TORCH_SINCE = Version("2.5")
# Since then, it makes wheels by itself.
_SETUPTOOLS_SINCE = Version("70.1")
_MARK = "glmpatch-torch:"
# Without the backends of others: a broken one, maybe an older one of ours, is no reason not to build. And without the
# folder we are in, which can hold a torch that is not installed: its sources.
_ASK_TORCH = f"""\
import sys
sys.path = [folder for folder in sys.path if folder]
import json, torch, torch.distributed
available = torch.distributed.is_available()
own = available and hasattr(torch._C._distributed_c10d, "ProcessGroupMPI")
print("{_MARK}" + json.dumps([torch.__version__, available, own]))
"""


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """What PyTorch says when it is imported.

    Attributes:
        version: `torch.__version__`.
        distributed: Whether it has `torch.distributed`.
        own_mpi: Whether it was built with MPI.
    """

    version: str
    distributed: bool
    own_mpi: bool


def ask_torch() -> TorchFacts | Problem:
    """Import PyTorch in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        return Problem("PyTorch is not installed in this environment", pip("install torch"))
    environment = {**os.environ, AUTOLOAD: "0"}
    try:
        lines = list(stream([sys.executable, "-c", _ASK_TORCH], env=environment))
    except CommandFailedError as error:
        last = error.tail.strip().rpartition("\n")[2]
        mend = "install it again: " + pip("install --force-reinstall torch")
        return Problem(f"PyTorch cannot be imported: {last}", mend)
    (answer,) = (line.partition(_MARK)[2] for line in lines if _MARK in line)
    return TorchFacts(*json.loads(answer))


def problems_of_torch(torch: TorchFacts | Problem) -> Iterator[Problem]:
    """What is wrong with this PyTorch."""
    if isinstance(torch, Problem):
        yield torch
    elif Version(torch.version).release < _TORCH_SINCE.release:
        yield Problem(
            f"torch {torch.version} loads no backends from its environment, only torch {_TORCH_SINCE} and newer do",
            pip(f"install 'torch>={_TORCH_SINCE}'") + ", or build this one from source with MPI",
        )
    elif not torch.distributed:
        yield Problem(f"torch {torch.version} was built without torch.distributed", "install a build that has it")


def problems_of_tools(compiler: Compiler | None) -> Iterator[Problem]:
    """What is missing to compile."""
    if compiler is None:
        chosen = os.environ.get("CXX")
        named = f"the variable CXX names no C++ compiler that starts: {chosen!r}"
        what = named if chosen else "there is no C++ compiler"
        yield Problem(what, "install one (Debian: apt-get install g++), or name one in the variable CXX")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        yield Problem(f"Python's headers are not installed: no {header}", f"Debian: apt-get install {name}")
    if shutil.which("ninja", path=tool_path()) is None:
        yield Problem("ninja is not installed", pip("install ninja"))
    try:
        found = version("setuptools")
    except PackageNotFoundError:
        found = "0"
    if Version(found) < _SETUPTOOLS_SINCE:
        what = "setuptools is not installed" if found == "0" else f"setuptools {found} cannot make a wheel by itself"
        yield Problem(what, pip(f"install 'setuptools>={_SETUPTOOLS_SINCE},<81'"))


def problems_of_folders(wheel_dir: Path | None) -> Iterator[Problem]:
    """Why there is no place to build in, or none for the wheel if that is to be kept."""
    scratch = tempfile.gettempdir()
    if os.statvfs(scratch).f_flag & os.ST_NOEXEC:
        yield Problem(f"{scratch} is mounted so that no program in it runs", "set TMPDIR to a folder where they do")
    if wheel_dir is not None:
        folder = wheel_dir.absolute()
        there = next(parent for parent in (folder, *folder.parents) if os.access(parent, os.F_OK))
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            yield Problem(f"{there} is no folder that can be written to", "name another one with --wheel-dir")


def problems_of_mpi(
    flavour: Flavour, search: Search, root: Path | None, why_pip_cannot: Sequence[Problem]
) -> Iterator[Problem]:
    """Why there is no MPI, if none was found and none can be installed, either. Those of pip are not told again."""
    if search.installation:
        return
    passed_over = "; ".join(search.passed_over)
    if root:
        yield Problem(passed_over, f"name the folder that holds {flavour.title}'s bin/mpirun, or leave --mpi-root out")
        return
    in_the_way = list(other_mpis(flavour.id))
    if in_the_way or why_pip_cannot:
        packages = " ".join(mpi_packages(flavour.id))
        found = f" that will do ({passed_over})" if passed_over else ""
        yield Problem(
            f"there is no {flavour.title}{found}, and {packages} cannot be installed",
            "see below, or name an installation with --mpi-root",
        )
    yield from in_the_way


def tool_path() -> str:
    """PATH with the programs of this environment first, for it may not be active."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
