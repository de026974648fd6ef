"""What the steps of a build of PyTorch do with Python alone. Runs by itself, with any Python: it imports nothing.

torch_tool.py environment FOLDER                make a virtual environment, if the folder is none and holds nothing
torch_tool.py checksum FILE SHA256              see that a file is the right one
torch_tool.py source FOLDER VERSION [COMMIT]    see that a source tree is whole, and of that version
torch_tool.py configured FOLDER ROOT [LIBRARY]  see that CMake found the MPI in ROOT, and no other
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
# How the names of our own files in an environment begin: that of the lock, and that of one that is being made.
_OURS = ".glmpatch-"
_OFF = {"", "0", "FALSE", "IGNORE", "N", "NO", "NOTFOUND", "OFF"}


class _Wrong(Exception):
    """What is wrong, a sentence."""


def make_environment(folder: Path) -> None:
    """Make a virtual environment. What is an environment already, of whatever kind, stays as it is."""
    # Its Python is there long before its pip: one that was killed between them is made again.
    unfinished = folder / f"{_OURS}unfinished"
    if not unfinished.exists():
        if os.access(folder / "bin" / "python", os.X_OK):
            return
        folder.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(_OURS) for entry in folder.iterdir()):
            raise _Wrong(f"{folder} is no environment, and not empty")
        unfinished.touch()
    venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
    unfinished.unlink()


def check_checksum(path: Path, expected: str) -> None:
    """See that a file has a checksum."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise _Wrong(f"{path} does not have the checksum {expected}, but {digest.hexdigest()}")


def check_source(folder: Path, version: str, commit: str | None = None) -> None:
    """See that the tree is of the version and at the commit, and that its submodules, and theirs, hold files."""
    told = (folder / "version.txt").read_text(encoding="utf-8").strip()
    if told.split(".")[:2] != version.split(".")[:2]:
        raise _Wrong(f"{folder} is the source of torch {told}, not of {version}")
    if commit is not None:
        head = (folder / ".git" / "HEAD").read_text(encoding="utf-8").strip()
        if head != commit:
            raise _Wrong(f"{folder} is at {head}, not at {commit}")
    missing = [str(inner) for inner in _empty_submodules(folder)]
    if missing:
        raise _Wrong(f"these submodules are not there: {', '.join(missing)}")


def _empty_submodules(folder: Path, *, inner: bool = False) -> Iterator[Path]:
    """The submodules that hold nothing. Those of submodules that git has no folder for are entries left behind."""
    modules = configparser.ConfigParser(interpolation=None, strict=False)
    file = folder / ".gitmodules"
    if file.exists():
        # Git does not mind how far a line is indented; this reader would take it for more of the line before.
        modules.read_string("\n".join(map(str.strip, file.read_text(encoding="utf-8").splitlines())))
    for section in modules.sections():
        module = folder / modules[section]["path"]
        if module.is_dir() and any(entry.name != ".git" for entry in module.iterdir()):
            yield from _empty_submodules(module, inner=True)
        elif module.is_dir() or not inner:
            yield module


def check_configured(folder: Path, root: Path, expected: Path | None = None) -> None:
    """See that the build is one with MPI, that each library of MPI that it links is in `root`, and one the expected.

    CMake names them by what the compiler wrapper links: MPI_mpi_LIBRARY, and MPI_rt_LIBRARY for what is no MPI's own.
    """
    text = (folder / "CMakeCache.txt").read_text(encoding="utf-8", errors="replace")
    cache = dict(re.findall(r"^([^#/\n:=]+):[A-Z]+=(.*)$", text, re.MULTILINE))
    if cache.get("USE_MPI", "OFF").upper() in _OFF:
        raise _Wrong("CMake found no MPI: USE_MPI is OFF")
    found = [value for name, value in cache.items() if re.fullmatch(r"MPI_mpi\w*_LIBRARY", name) and value[:1] == "/"]
    if not found:
        raise _Wrong("CMake found no MPI: no library of it is in CMakeCache.txt")
    for library in map(Path, found):
        if root.resolve() not in library.resolve().parents:
            raise _Wrong(f"CMake found another MPI: {library} is not in {root}")
    # A folder like /usr can hold several.
    if expected is not None and expected.resolve() not in {Path(library).resolve() for library in found}:
        raise _Wrong(f"CMake found another MPI: {' and '.join(found)}, not {expected}")
    sys.stdout.write(f"MPI: {' '.join(found)}\n")


def main(command: str, path: str, *rest: str) -> str | None:
    """Do what is asked for, and return what is wrong."""
    try:
        if command == "environment":
            make_environment(Path(path))
        elif command == "checksum":
            check_checksum(Path(path), *rest)
        elif command == "source":
            check_source(Path(path), *rest)
        elif command == "configured":
            check_configured(Path(path), *map(Path, rest))
        else:
            return f"there is no command {command}"
    except (_Wrong, OSError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
