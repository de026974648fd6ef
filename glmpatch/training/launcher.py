"""What starts the ranks: the MPI that this environment's backend was built for, or torchrun where there is none."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from glmpatch.building.record import installed_backend
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import Installation, prepend
from glmpatch.patching.model import Backend


@dataclass(frozen=True, slots=True)
class Torchrun:
    """Starts ranks that talk through gloo, which every PyTorch has."""

    backend: Backend = "gloo"
    title: str = "gloo"

    def command(self, ranks: int, script: str, scratch: Path) -> list[str]:
        """The command that runs a shell script as so many ranks. `scratch` is a folder for torchrun's own logs."""
        return [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--no-python",
                "--standalone",
                "--local-addr",
                "127.0.0.1",
            ),
            *("--log-dir", str(scratch / "torchrun"), "--nproc-per-node", str(ranks), "bash", script),
        ]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` as it is."""
        return dict(base)

    def to_type(self, ranks: int, script: str) -> str:
        """The same, for a person to type."""
        return _to_type(os.environ, ["torchrun", "--no-python", "--nproc-per-node", str(ranks), "bash", script])


@dataclass(frozen=True, slots=True)
class Mpirun:
    """Starts ranks that talk through an MPI."""

    mpi: Installation
    backend: Backend = "mpi"

    @property
    def title(self) -> str:
        """The MPI and its version."""
        return f"{self.mpi.flavour.title} {self.mpi.version}"

    def command(self, ranks: int, script: str, scratch: Path) -> list[str]:  # noqa: ARG002 - torchrun needs it
        """The command that runs a shell script as so many ranks."""
        return self.mpi.launch(ranks, ["bash", script])

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what the MPI needs."""
        return self.mpi.environment(base)

    def to_type(self, ranks: int, script: str) -> str:
        """The same, for a person to type, with the variables that the MPI needs and this shell has not."""
        return _to_type(self.mpi.environment(os.environ), self.mpi.launch(ranks, ["bash", script]))


def _to_type(needed: Mapping[str, str], command: Sequence[str]) -> str:
    """The command, after the variables that it needs and this shell has not.

    The script says python3, and this Python may be in an environment that is not active, or behind an MPI in /usr/bin:
    its folder is put first, unless its programs are what is found anyway.
    """
    own = Path(sys.executable).parent
    programs = [own / name for name in ("python3", "torchrun") if (own / name).exists()]
    if any(shutil.which(program.name, path=needed.get("PATH")) != str(program) for program in programs):
        needed = {**needed, **prepend("PATH", [own], needed)}
    missing = [_assignment(name, value) for name, value in needed.items() if os.environ.get(name) != value]
    return " ".join([*(["env", *missing] if missing else []), shlex.join(command)])


def _assignment(name: str, value: str) -> str:
    """For a shell; what the variable has already is not spelled out."""
    old = os.environ.get(name)
    if old and value.endswith(f"{os.pathsep}{old}"):
        return f'{name}={shlex.quote(value.removesuffix(old))}"${name}"'
    return f"{name}={shlex.quote(value)}"


Launcher: TypeAlias = Torchrun | Mpirun


def find_launcher(backend: Backend | None) -> Launcher:
    """What starts ranks that talk through `backend`; None: through MPI if this environment can, else through gloo.

    Raises:
        UsageError: There is no launcher for this backend.
        EnvironmentLacksError: It is MPI, and there is no MPI backend, or its MPI is gone or changed.
    """
    if backend not in {None, "mpi", "gloo"}:
        raise UsageError(f"the demo does not run with the backend {backend}", hint="choose mpi or gloo")
    built = installed_backend()
    if backend == "gloo" or (backend is None and built is None):
        return Torchrun()
    if built is None:
        raise EnvironmentLacksError(
            "glmpatch-mpi is not installed; for the backend mpi the demo needs it, even if torch was built with MPI",
            hint="glmpatch build-backend --mpi intel, or choose --backend gloo",
        )
    for root in (Path(built.mpi_root), None):
        found = FLAVOURS[built.flavour].search(root).installation
        # The backend loads with no other.
        if found and found.identity == built.identity:
            return Mpirun(found)
    raise EnvironmentLacksError(
        f"the MPI backend was built for {built.mpi} {built.mpi_version} in {built.mpi_root}, which is gone or changed",
        hint=f"glmpatch build-backend --mpi {built.flavour}",
    )
