"""What an MPI backend was built for and with: the file `build.json` in its wheel."""

from __future__ import annotations

import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from glmpatch.mpi import FlavourId

DISTRIBUTION = "glmpatch-mpi"
RECORD = "glmpatch_mpi/build.json"


class BackendInfo(msgspec.Struct, frozen=True):
    """What an MPI backend was built for and with. No date, no name of a folder that is gone: it is reproducible.

    Attributes:
        version: The version of the wheel.
        torch: The `torch.__version__` that it is for, the only one that it loads with.
        flavour: The MPI that it is for, the only one that it loads with.
        mpi: The name of that MPI.
        mpi_version: Its version.
        mpi_root: Where it was when the backend was built.
        identity: How the text of `MPI_Get_library_version` begins.
        library: That text in full, with single spaces.
        compiler: The first line of what the C++ compiler says about itself.
        compile_flags: What the compiler was told about MPI.
        link_flags: What the linker was told about MPI.
        sanitized: Whether the sanitizers of the compiler are in it.
        inputs: A hash of all that went into it. The same hash, the same backend.
    """

    version: str
    torch: str
    flavour: FlavourId
    mpi: str
    mpi_version: str
    mpi_root: str
    identity: str
    library: str
    compiler: str
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    sanitized: bool
    inputs: str


def installed_backend() -> BackendInfo | None:
    """The backend that this environment has, whole. Reads a file; imports neither torch nor the backend."""
    try:
        found = distribution(DISTRIBUTION)
        sizes = ((Path(str(file.locate())), file.size) for file in found.files or ())
        if any(size is not None and file.stat().st_size != size for file, size in sizes):
            return None
        return _decode(Path(str(found.locate_file(RECORD))).read_bytes())
    except (PackageNotFoundError, OSError):
        return None


def backend_in_wheel(wheel: Path) -> BackendInfo | None:
    """The backend in a wheel file, if it is one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _decode(archive.read(RECORD))
    except (OSError, zipfile.BadZipFile, KeyError):
        return None


def _decode(data: bytes) -> BackendInfo | None:
    """A damaged record is none: the backend is built anew."""
    try:
        return msgspec.json.decode(data, type=BackendInfo)
    except msgspec.DecodeError:
        return None
