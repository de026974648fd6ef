"""What the compiler wrapper of an MPI tells: where its headers and libraries are."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class PassedOver(Exception):
    """A root does not hold what is looked for. The message is a clause with the root as its subject."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The parts of a C++ wrapper's command line that matter. The rest is the wrapper's taste."""

    headers: tuple[Path, ...]
    folders: tuple[Path, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, command: str, root: Path) -> Flags:
        """Read what `mpicxx -show` prints; where it names no folder that exists, the usual ones of `root` are meant."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise PassedOver(f"has an mpicxx that says {command!r}") from error
        headers, folders, names = (
            tuple(dict.fromkeys(word[2:] for word in words if word.startswith(flag))) for flag in ("-I", "-L", "-l")
        )
        return cls(
            _existing(map(Path, headers)) or _existing([root / "include"]),
            _existing(map(Path, folders)) or _existing([root / "lib64", root / "lib"]),
            names,
        )

    def library(self) -> Path:
        """The file with the MPI functions of C."""
        file = find_library(self.folders, self.names)
        if file is None:
            raise PassedOver("lacks the library libmpi.so")
        return _behind_script(file)

    def compile_flags(self) -> tuple[str, ...]:
        """What a C++ compiler needs to find the headers."""
        return tuple(f"-I{folder}" for folder in self.headers)

    def link_flags(self) -> tuple[str, ...]:
        """With the old kind of run path: what the MPI itself loads later, libfabric, is searched there, too."""
        paths = [flag for folder in self.folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
        return ("-Wl,--disable-new-dtags", *paths, "-Wl,--as-needed", *(f"-l{name}" for name in self.names))


def _existing(folders: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(folder for folder in folders if folder.is_dir())


def find_library(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """What a linker takes for the MPI functions of C. It is called libmpi, but for Debian's libmpich."""
    folders = list(folders)
    files = (folder / f"lib{name}.so" for name in ("mpi", "mpich") if name in names for folder in folders)
    return next((file for file in files if file.exists()), None)


def _behind_script(file: Path) -> Path:
    """The library itself: in a package, which cannot hold links, `libmpi.so` is a linker script that names it."""
    with file.open("rb") as opened:
        start = opened.read(4096)
    named = re.search(rb"INPUT\(\s*([^\s)]+)", start)
    return file if named is None or start.startswith(b"\x7fELF") else file.parent / os.fsdecode(named[1])
