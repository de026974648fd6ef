"""The flavours of MPI."""

from collections.abc import Mapping

from glmpatch.mpi.flavour import Flavour, FlavourId
from glmpatch.mpi.intel import Intel
from glmpatch.mpi.mpich import Mpich
from glmpatch.mpi.openmpi import OpenMpi

__all__ = ["FLAVOURS", "Flavour", "FlavourId"]

FLAVOURS: Mapping[FlavourId, Flavour] = {"intel": Intel(), "openmpi": OpenMpi(), "mpich": Mpich()}
