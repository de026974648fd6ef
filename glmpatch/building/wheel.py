"""Makes the wheel of the backend, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from glmpatch import __version__
from glmpatch.building.logged import logged
from glmpatch.building.preflight import tool_path
from glmpatch.building.record import RECORD, BackendInfo
from glmpatch.building.toolchain import AUTOLOAD, Compiler, sanitize, source_files, sources
from glmpatch.mpi.flavour import Installation
from glmpatch.process import find_program, stream

# What ninja prints before each of its commands.
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
# Where setuptools starts to report that ninja has failed.
_REPORT = "Traceback (most recent call last):"
# The first second that a zip file can tell. Any will do, as long as it is always the same.
_EPOCH = "315532800"


@dataclass(frozen=True, slots=True)
class Compiled:
    """So many of the files are compiled."""

    done: int
    total: int


def wheel_version(torch: str, mpi: Installation) -> str:
    """The version of the wheel, which names what it is for: `0.1.0+torch2.13.0.cpu.intel2021.18.1`."""
    local = f"torch{torch}.{mpi.flavour.id}{mpi.version}" + (".sanitized" if sanitize() else "")
    return f"{__version__}+{re.sub(r'[^a-z0-9]+', '.', local.lower())}"


def build_wheel(
    info: BackendInfo, compiler: Compiler, folder: Path, *, jobs: int | None, on_compiled: Callable[[Compiled], None]
) -> Path:
    """Compile the sources and pack the wheel.

    Args:
        info: What it is for. Goes into the wheel.
        compiler: What to compile with.
        folder: An empty folder to do it in.
        jobs: Compilers to run at once; None for one on each core.
        on_compiled: Called as files get compiled.

    Raises:
        BuildFailedError: It does not compile.
    """
    source = folder / "source"
    for file in source_files():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sources() / file, source / file)
    (source / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(info)))

    command = [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(folder / "dist")]
    environment = _environment(compiler, folder, jobs or len(os.sched_getaffinity(0)))
    printed = stream(command, cwd=source, env=environment)
    with closing(logged(printed, "the compilation of the MPI backend", report=(_STEP, _REPORT))) as lines:
        for line in lines:
            if step := _STEP.match(line):
                on_compiled(Compiled(int(step[1]), int(step[2])))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def _environment(compiler: Compiler, folder: Path, jobs: int) -> dict[str, str]:
    """The environment of setup.py: this compiler everywhere, through ccache if it is there."""
    path, cached = tool_path(), {}
    words = shlex.split(compiler.command)
    ccache, program = shutil.which("ccache"), Path(find_program(words[0])).absolute()
    # Not if CXX is `ccache g++`, or a link to it.
    if ccache and program.resolve().name != "ccache":
        # A link of the compiler's name is ccache's way to be found by tools that know nothing of it.
        links = folder / "ccache"
        links.mkdir()
        (links / program.name).symlink_to(ccache)
        words[0] = program.name
        # Where ccache looks for the compiler itself: the first of that name on PATH may be another one.
        cached = {"CCACHE_PATH": os.pathsep.join([str(program.parent), path])}
        path = os.pathsep.join([str(links), path])
    command = shlex.join(words)
    return {
        **os.environ,
        **cached,
        "PATH": path,
        "CXX": command,
        # Python's own way to link names the compiler that Python was built with, which may not be here.
        "LDSHARED": f"{command} -shared",
        "LDCXXSHARED": f"{command} -shared",
        "MAX_JOBS": str(jobs),
        # A broken backend, maybe an older one of ours, is no reason not to build.
        AUTOLOAD: "0",
        "SOURCE_DATE_EPOCH": _EPOCH,
        # The folder is another one each time.
        "CCACHE_BASEDIR": str(folder),
        "CCACHE_NOHASHDIR": "1",
    }
