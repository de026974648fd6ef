"""What the backend is built from: PyTorch, a C++ compiler, an MPI, our sources. Quick: nothing of it is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glmpatch import __version__
from glmpatch.assets import asset_folder
from glmpatch.errors import GlmpatchError
from glmpatch.mpi.flavour import Installation
from glmpatch.process import stream

# Those that the build reads. A change of theirs changes the backend.
_VARIABLES = (
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"),
    *("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH"),
    "GLMPATCH_SANITIZE",
)
_SANITIZE = "GLMPATCH_SANITIZE"
# Whether PyTorch loads the backends of its environment when it is imported: not if it is 0.
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_IGNORED = {"__pycache__", "build.json"}


@dataclass(frozen=True, slots=True)
class Torch:
    """The PyTorch of this environment, as its file `version.py` tells it.

    Attributes:
        version: Its `torch.__version__`.
        stamp: A hash of that file, which names the commit, too.
    """

    version: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: How it is called, `c++` or what the variable CXX says.
        banner: The first line of what it says about itself.
    """

    command: str
    banner: str


def sources() -> Path:
    """The folder of the backend's sources."""
    return asset_folder("build") / "mpi_backend"


def source_files() -> list[Path]:
    """Every file of the sources, relative to their folder."""
    root = sources()
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(file for file in files if not _IGNORED.intersection(file.parts))


def sanitize() -> bool:
    """Whether the variable GLMPATCH_SANITIZE asks for a backend to test, slow and checked."""
    return os.environ.get(_SANITIZE) == "1"


def sanitizer_environment(compiler: Compiler) -> dict[str, str]:
    """What a Python that was built without sanitizers needs to load a library with them."""
    command = shlex.split(compiler.command)
    files = [next(stream([*command, f"-print-file-name={name}"])) for name in ("libasan.so", "libubsan.so")]
    # Python and MPI keep memory to the end on purpose.
    return {"LD_PRELOAD": " ".join(files), "ASAN_OPTIONS": "detect_leaks=0"}


def find_torch() -> Torch | None:
    """The PyTorch of this environment."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder, "version.py")
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            if match := re.search(r"^__version__\b.*?=\s*(['\"])(.+?)\1", text, re.MULTILINE):
                return Torch(match[2], hashlib.sha256(text.encode()).hexdigest())
    return None


def find_compiler() -> Compiler | None:
    """The compiler that CXX names, else the system's."""
    chosen = os.environ.get("CXX")
    for command in [chosen] if chosen else ["c++", "g++", "clang++"]:
        # No name at all, quotes that do not end, no program of that name, or one that is none, or fails.
        with suppress(ValueError, OSError, GlmpatchError):
            first, *others = shlex.split(command)
            lines = list(stream([first, *others, "--version"]))
            return Compiler(command, next(iter(lines), "unknown"))
    return None


def hash_inputs(torch: Torch, compiler: Compiler, mpi: Installation) -> str:
    """A hash of everything that goes into the backend: if it is the same, there is nothing to build."""
    facts = {
        "glmpatch": __version__,
        "python": [sys.version, sysconfig.get_config_var("EXT_SUFFIX")],
        "torch": [torch.version, torch.stamp],
        "compiler": [compiler.command, compiler.banner],
        "mpi": [mpi.library, str(mpi.root), *mpi.compile_flags, *mpi.link_flags],
        "variables": build_variables(),
        "sources": dict(_hash_sources()),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_variables() -> dict[str, str | None]:
    """The user's variables that compilers and builds read."""
    return {name: os.environ.get(name) for name in _VARIABLES}


def _hash_sources() -> Iterator[tuple[str, str]]:
    for file in source_files():
        yield file.as_posix(), hashlib.sha256((sources() / file).read_bytes()).hexdigest()
