"""What starts the ranks: the MPI that this environment's backend was built for, or torchrun where there is none."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from glmpatch.building.record import installed_backend
from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.launching.plan import find_built_for
from glmpatch.mpi.flavour import Installation
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
        """The same, for a person to type.

        The script says python3, and this Python may be in an environment that is not active: its folder is put first,
        unless its programs are what is found anyway.
        """
        own = Path(sys.executable).parent
        programs = [own / name for name in ("python3", "torchrun") if (own / name).exists()]
        found = all(shutil.which(program.name) == str(program) for program in programs)
        command = ["torchrun", "--no-python", "--nproc-per-node", str(ranks), "bash", script]
        return shlex.join(command) if found else f'env PATH={shlex.quote(str(own))}:"$PATH" {shlex.join(command)}'


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

    def to_type(self, ranks: int, script: str) -> str:  # noqa: ARG002 - torchrun needs it
        """For a person to type, where `glmpatch apply` has written the launch script."""
        return f"./launch_cpu.sh {shlex.quote(script)}"


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
    if found := find_built_for(built):
        return Mpirun(found)
    raise EnvironmentLacksError(
        f"the MPI backend was built for {built.mpi} {built.mpi_version} in {built.mpi_root}, which is gone or changed",
        hint=f"glmpatch build-backend --mpi {built.flavour}",
    )
