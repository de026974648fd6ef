"""The MPIs to test with: one of each flavour, and the Open MPI of a distribution where it is of the old kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import Installation
from glmpatch.mpi.openmpi import is_old
from tests.mpi_support import ALL_FLAVOURS, installation

OLD = "openmpi4"
NAMES = (*ALL_FLAVOURS, OLD)


@cache
def find(name: str) -> Installation:
    """The MPI of that name, or the test is skipped."""
    if name != OLD:
        return next(installation(flavour) for flavour in ALL_FLAVOURS if flavour == name)
    found = FLAVOURS["openmpi"].search(Path("/usr")).installation
    if found is None or not is_old(found.version):
        pytest.skip("no Open MPI 4 in /usr; Debian's openmpi-bin and libopenmpi-dev bring it")
    return found
