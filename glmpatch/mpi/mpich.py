"""MPICH: from a distribution, or from the package `mpich`."""

from __future__ import annotations

import re
from typing import ClassVar

from glmpatch.mpi.flavour import Flavour, FlavourId


class Mpich(Flavour):
    """MPICH, launched by its Hydra."""

    id: ClassVar[FlavourId] = "mpich"
    title: ClassVar[str] = "MPICH"
    identity: ClassVar[re.Pattern[str]] = re.compile(r"MPICH Version: (?P<version>\d[\w.]*)")
    launcher: ClassVar[re.Pattern[str]] = re.compile(r"HYDRA build details")
    suffix: ClassVar[str] = ".mpich"
