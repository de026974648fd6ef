"""The step that makes the wheel of the backend."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import msgspec

from glmpatch import __version__
from glmpatch.building.preflight import tool_path
from glmpatch.building.record import RECORD, BackendInfo
from glmpatch.building.steps import Command, Step
from glmpatch.building.toolchain import AUTOLOAD, Compiler, sanitize, source_files, sources
from glmpatch.mpi.flavour import Installation
from glmpatch.process import find_program

# The first second that a zip file can tell. Any will do, as long as it is always the same.
_EPOCH = "315532800"
# How this Python finds its modules, and PyTorch may be one of them. A build goes without, unless it is told.
_PYTHON = ("PYTHONPATH", "PYTHONHOME")


def wheel_version(torch: str, mpi: Installation) -> str:
    """The version of the wheel, which names what it is for: `0.1.0+torch2.13.0.cpu.intel2021.18.1`."""
    local = f"torch{torch}.{mpi.flavour.id}{mpi.version}" + (".sanitized" if sanitize() else "")
    return f"{__version__}+{re.sub(r'[^a-z0-9]+', '.', local.lower())}"


def own_variables(*names: str) -> dict[str, str]:
    """Those of the variables that are set, and those that this Python finds PyTorch with."""
    return {name: os.environ[name] for name in (*_PYTHON, *names) if name in os.environ}


def build_step(info: BackendInfo, compiler: Compiler, folder: Path, *, jobs: int | None) -> Step:
    """Compile the sources and pack the wheel, into `folder / "dist"`.

    Args:
        info: What it is for. Goes into the wheel.
        compiler: What to compile with.
        folder: Where to do it.
        jobs: Compilers to run at once; None for one on each core.
    """
    source, dist = folder / "source", folder / "dist"
    files = {source / file: (sources() / file).read_text(encoding="utf-8") for file in source_files()}
    setup = (sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(dist))
    chosen, links = _choose(compiler, folder / "ccache")
    environment = {
        **own_variables(),
        **chosen,
        "MAX_JOBS": str(jobs or len(os.sched_getaffinity(0))),
        # A broken backend, maybe an older one of ours, is no reason not to build.
        AUTOLOAD: "0",
        "SOURCE_DATE_EPOCH": _EPOCH,
        # The folder is another one each time.
        "CCACHE_BASEDIR": str(folder),
        "CCACHE_NOHASHDIR": "1",
    }
    return Step(
        "build",
        f"compile for torch {info.torch} and {info.mpi} {info.mpi_version}",
        commands=(*links, Command(setup, environment, cwd=source)),
        files={**files, source / RECORD: msgspec.json.format(msgspec.json.encode(info)).decode()},
        outputs=(dist,),
    )


def _choose(compiler: Compiler, folder: Path) -> tuple[dict[str, str], tuple[Command, ...]]:
    """The variables that make it the compiler everywhere, through ccache if that is there; what makes links for it."""
    path, cached = tool_path(), {}
    links: tuple[Command, ...] = ()
    words = shlex.split(compiler.command)
    ccache, program = shutil.which("ccache"), Path(find_program(words[0])).absolute()
    # Not if CXX is `ccache g++`, or a link to it.
    if ccache and program.resolve().name != "ccache":
        # A link of the compiler's name is ccache's way to be found by tools that know nothing of it.
        links = (Command(("mkdir", str(folder))), Command(("ln", "-s", ccache, str(folder / program.name))))
        words[0] = program.name
        # Where ccache looks for the compiler itself: the first of that name on PATH may be another one.
        cached = {"CCACHE_PATH": os.pathsep.join([str(program.parent), path])}
        path = os.pathsep.join([str(folder), path])
    command = shlex.join(words)
    # Python's own way to link names the compiler that Python was built with, which may not be here.
    linkers = dict.fromkeys(("LDSHARED", "LDCXXSHARED"), f"{command} -shared")
    return {**cached, "PATH": path, "CXX": command, **linkers}, links
