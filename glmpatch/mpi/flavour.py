"""What the MPIs have in common: how one is found, told from the others, compiled against and launched."""

from __future__ import annotations

import os
import re
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from glmpatch.errors import EnvironmentLacksError
from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology
from glmpatch.mpi.pinning import Pinning
from glmpatch.mpi.wrapper import Flags, PassedOver, find_library
from glmpatch.process import CommandFailedError, stream

FlavourId: TypeAlias = Literal["intel", "openmpi", "mpich"]

_SYSTEM = Path("/usr")
# What schedulers and their jobs tell an mpirun: on which other hosts to start ranks, and how. The same for Hydra's own.
_ELSEWHERE = re.compile(
    r"(SLURM|PBS|LSB|LOADL|COBALT|PMI)_|PMIX_(?!MCA_)|PE_HOSTFILE$|(I_MPI_)?HYDRA_(HOST|BOOTSTRAP|LAUNCHER|RMK)"
    r"|(OMPI|PRTE)_MCA_\w*hostfile$"
)
_MARK = "glmpatch-mpi:"
# Run apart: a process can hold one MPI only, and Intel's library and MPICH's even have the same soname.
_ASK_LIBRARY = f"""\
import ctypes, sys
text, length = ctypes.create_string_buffer(65536), ctypes.c_int()
ctypes.CDLL(sys.argv[1]).MPI_Get_library_version(text, ctypes.byref(length))
print("{_MARK}" + " ".join(text.value.decode(errors="replace").split()))
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """An MPI on this machine that compiles and launches.

    Attributes:
        flavour: Which one it is.
        root: The folder that holds its `bin`.
        version: As its library tells it, `2021.18.1`.
        identity: How the text of `MPI_Get_library_version` begins, up to the version, with single spaces.
        library: That text in full, with single spaces.
        launcher: Its `mpirun`.
        compile_flags: What a C++ compiler needs to find its headers.
        link_flags: What a linker needs to find its libraries, now and when the program runs.
    """

    flavour: Flavour
    root: Path
    version: str
    identity: str
    library: str
    launcher: Path
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]

    @property
    def linked(self) -> Path | None:
        """The library that a linker finds with these flags."""
        folders, names = ([flag[2:] for flag in self.link_flags if flag.startswith(kind)] for kind in ("-L", "-l"))
        return find_library(map(Path, folders), names)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what this MPI needs to run on this host, and without what leads it to others."""
        here = {name: value for name, value in base.items() if not leads_elsewhere(name)}
        return self.flavour.environment(self.root, here)

    def launch(self, ranks: int, command: Sequence[str]) -> list[str]:
        """The command that runs `command` as so many ranks on this host."""
        return [str(self.launcher), *self.flavour.launch_options(), "-n", str(ranks), *command]


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found.

    Attributes:
        installation: The first that will do, if any.
        passed_over: Why each place before it would not, one clause each; places without any MPI are not told.
    """

    installation: Installation | None
    passed_over: tuple[str, ...]


class Flavour(ABC):
    """One kind of MPI.

    Attributes:
        id: How the command line calls it.
        title: How people call it.
        identity: Matches the beginning of the text of `MPI_Get_library_version`; the group `version` is the version.
        launcher: Matches what its `mpirun --version` says, and no other's does.
        suffix: What Debian appends to the names of its programs.
        rank_variable: What a rank reads its number from.
        size_variable: What a rank reads the number of all ranks from.
        local_rank_variable: What a rank reads its number on its host from.
        pmi: What `srun --mpi=` must say to start its ranks.
        per_host_flag: The option that tells how many ranks a host gets; None if the pinning tells.
    """

    id: ClassVar[FlavourId]
    title: ClassVar[str]
    identity: ClassVar[re.Pattern[str]]
    launcher: ClassVar[re.Pattern[str]]
    suffix: ClassVar[str] = ""
    rank_variable: ClassVar[str] = "PMI_RANK"
    size_variable: ClassVar[str] = "PMI_SIZE"
    local_rank_variable: ClassVar[str] = "MPI_LOCALRANKID"
    pmi: ClassVar[Literal["pmi2", "pmix"]] = "pmi2"
    per_host_flag: ClassVar[str | None] = "-ppn"

    def roots(self) -> Iterator[Path]:
        """Where to look, best first: the environment of this Python, PATH, where Debian puts it."""
        yield Path(sys.prefix)
        # Resolved: on a merged /usr, /bin is /usr/bin.
        yield from (Path(folder).resolve().parent for folder in os.get_exec_path())
        yield _SYSTEM

    def environment(self, root: Path, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what the MPI in `root` needs, to run and for its own tools.

        The packages bring libraries of their own, in a folder of the flavour's name. They are found without help, but
        not where LD_LIBRARY_PATH leads to other versions, as that of oneAPI does.
        """
        bundled = root / "lib" / self.id
        disturbed = bool(base.get("LD_LIBRARY_PATH")) and (bundled / "libfabric.so.1").exists()
        return {
            **base,
            **prepend("PATH", [root / "bin"], base),
            **(prepend("LD_LIBRARY_PATH", [bundled, root / "lib"], base) if disturbed else {}),
        }

    def launch_options(self) -> tuple[str, ...]:
        """Options of `mpirun`, besides the number of ranks."""
        return ()

    @abstractmethod
    def pinning(self, topology: Topology, placement: Placement, version: str) -> Pinning:
        """What makes this MPI put the ranks of one host on the cores of `placement`, and the same on each of several.

        Args:
            topology: The machine that the placement is for.
            placement: The cores of each local rank.
            version: Of this MPI: its options differ.

        Raises:
            UsageError: This MPI cannot be told so.
        """

    @abstractmethod
    def remote_shell(self, program: str, version: str) -> tuple[str, ...]:
        """The options of `mpirun` that make it reach other hosts by `program`, which is called as ssh is."""

    def search(self, root: Path | None = None, *, but: Path | None = None) -> Search:
        """Find an installation: in `root` and nowhere else if it is given, else the first of `roots()` that will do.

        Args:
            root: The only place to look.
            but: A place not to look.
        """
        roots = [root] if root else [folder for folder in dict.fromkeys(self.roots()) if folder != but]
        passed_over: list[str] = []
        for folder in roots:
            if not root and not self._has_programs(folder):
                continue
            try:
                return Search(self._examine(folder.absolute()), tuple(passed_over))
            except PassedOver as reason:
                passed_over.append(f"{folder} {reason}")
        return Search(None, tuple(passed_over))

    def _has_programs(self, root: Path) -> bool:
        return any(_program(root, name, self.suffix) for name in ("mpirun", "mpicxx"))

    def _examine(self, root: Path) -> Installation:
        """Everything about the MPI in `root`.

        Raises:
            PassedOver: It is incomplete, broken, or another flavour.
        """
        launcher = _program(root, "mpirun", self.suffix)
        compiler = _program(root, "mpicxx", self.suffix)
        if launcher is None:
            raise PassedOver("has no bin/mpirun")
        environment = {**self.environment(root, os.environ), "LC_ALL": "C"}
        said = _ask([str(launcher), "--version"], environment)
        if not self.launcher.search(said):
            raise PassedOver(f"has an mpirun that is not {self.title}'s: {_first_line(said)}")
        if compiler is None:
            raise PassedOver("can run programs, but lacks bin/mpicxx to compile them")
        shown = _ask([str(compiler), "-show"], environment).splitlines()
        flags = Flags.parse(shown[-1] if shown else "", root)
        if not any((folder / "mpi.h").is_file() for folder in flags.headers):
            raise PassedOver("can run programs, but lacks mpi.h to compile them")
        said = _ask([sys.executable, "-I", "-c", _ASK_LIBRARY, str(flags.library())], environment)
        # Behind what the loader may have to say, as of an LD_PRELOAD that is gone.
        library = said.rpartition(_MARK)[2]
        match = self.identity.match(library)
        if match is None:
            raise PassedOver(f"has a library that is not {self.title}'s: {library[:80]}")
        return Installation(
            self, root, match["version"], match[0], library, launcher, flags.compile_flags(), flags.link_flags()
        )


def leads_elsewhere(name: str) -> bool:
    """Whether a variable tells an mpirun to start ranks on other hosts."""
    return _ELSEWHERE.match(name) is not None


def prepend(variable: str, folders: Sequence[Path], base: Mapping[str, str]) -> dict[str, str]:
    """The variable, a list of paths, with these folders before what it has in `base`."""
    return {variable: os.pathsep.join([*map(str, folders), *filter(None, [base.get(variable)])])}


def _program(root: Path, name: str, suffix: str) -> Path | None:
    """The program of `root`; the name that is the flavour's own comes first."""
    files = (root / "bin" / f"{name}{ending}" for ending in dict.fromkeys((suffix, "")))
    return next((file for file in files if os.access(file, os.X_OK)), None)


def _ask(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a program prints."""
    try:
        return "\n".join(stream(command, env=environment))
    except CommandFailedError as error:
        raise PassedOver(f"is broken: {shlex.join(command[:2])} says: {_last_line(error.tail)}") from error
    except (EnvironmentLacksError, OSError) as error:
        raise PassedOver(f"is broken: {command[0]} does not start: {error}") from error


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "nothing")


def _last_line(text: str) -> str:
    return _first_line("\n".join(reversed(text.splitlines())))
