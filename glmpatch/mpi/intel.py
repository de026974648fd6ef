"""Intel MPI: from oneAPI, or from the packages `impi-devel` and `impi-rt`, which unpack it into an environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology
from glmpatch.mpi.flavour import Flavour, FlavourId, prepend
from glmpatch.mpi.pinning import Pinning, masks

_ONEAPI = Path("/opt/intel/oneapi/mpi/latest")
# Where libfabric lies, by age and origin: the packages, oneAPI since 2021.11, oneAPI before.
_FABRIC = ("lib", "opt/mpi/libfabric/lib", "libfabric/lib")


class Intel(Flavour):
    """Intel MPI."""

    id: ClassVar[FlavourId] = "intel"
    title: ClassVar[str] = "Intel MPI"
    identity: ClassVar[re.Pattern[str]] = re.compile(r"Intel\(R\) MPI Library (?P<version>\d[\w.]*)")
    launcher: ClassVar[re.Pattern[str]] = re.compile(r"Intel\(R\) MPI Library")

    def roots(self) -> Iterator[Path]:
        """Before all others: where oneAPI's `setvars.sh` says it is, and where oneAPI installs it."""
        if told := os.environ.get("I_MPI_ROOT"):
            yield Path(told)
        yield _ONEAPI
        yield from super().roots()

    def environment(self, root: Path, base: Mapping[str, str]) -> dict[str, str]:
        """Intel's scripts find their parts through `I_MPI_ROOT` and PATH, its library finds libfabric by the loader.

        Without `I_MPI_ROOT` its compiler prints placeholders; with it, `mpirun` no longer sets the rest by itself.
        Without libfabric every fabric but shared memory aborts.
        """
        fabric = [root / folder for folder in _FABRIC if (root / folder / "libfabric.so.1").exists()]
        providers = [folder / "prov" for folder in fabric if (folder / "prov").is_dir()]
        libraries = list(dict.fromkeys([*fabric, root / "lib"]))
        return {
            **super().environment(root, base),
            "I_MPI_ROOT": str(root),
            **prepend("LD_LIBRARY_PATH", libraries, base),
            **({"FI_PROVIDER_PATH": str(providers[0])} if providers else {}),
        }

    def pinning(self, topology: Topology, placement: Placement, version: str) -> Pinning:  # noqa: ARG002
        """Masks of CPUs: names of domains, like `numa`, count memory that has no CPUs, too."""
        domains = {"I_MPI_PIN_DOMAIN": f"[{','.join(masks(placement))}]", "I_MPI_PIN_CELL": "core"}
        lists = ("I_MPI_PIN_PROCESSOR_LIST", "I_MPI_PIN_PROCESSOR_EXCLUDE_LIST")
        return Pinning((), {"I_MPI_PIN": "on", **domains}, without=lists)

    def remote_shell(self, program: str, version: str) -> tuple[str, ...]:  # noqa: ARG002
        """The bootstrap server is ssh, whatever program it is."""
        return ("-bootstrap", "ssh", "-bootstrap-exec", program)
