"""Gives the PyTorch wheel its `backend="mpi"`.

PyTorch calls `autoload` when it is imported. All that happens then is that a light class takes the place that
`ProcessGroupMPI` has in a PyTorch built with MPI. The first process group loads the library behind it and MPI itself,
after a look at whether they fit.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

_log = logging.getLogger(__name__)

_CORE = "torch._C._distributed_c10d"
_API = "torch.distributed.distributed_c10d"
_PACKAGE = "torch.distributed"
# What PyTorch itself waits for, unless it is told otherwise.
_DEFAULT_TIMEOUT = timedelta(minutes=30)


class ProcessGroupMPI:
    """Stands in for the real class until the first process group is made."""

    @staticmethod
    def create(ranks: Sequence[int]) -> Any:
        """Load the real class, and create with it.

        Args:
            ranks: The global ranks of the group; empty for all.

        Raises:
            RuntimeError: The library does not fit this PyTorch or this MPI, or does not load.
        """
        return _load().create(ranks)


def autoload() -> None:
    """What PyTorch calls on import: `register`, but nothing in here may break that import."""
    try:
        register()
    except Exception:  # noqa: BLE001 - see above
        _log.warning('backend="mpi" is not available: glmpatch-mpi does not fit this PyTorch', exc_info=True)


def register() -> bool:
    """Put `ProcessGroupMPI` where PyTorch looks for it. To be called by hand only where autoloading is turned off.

    Returns:
        Whether `backend="mpi"` is glmpatch's. It is not if this PyTorch was built with MPI: its own is left alone.
    """
    import torch.distributed  # noqa: PLC0415 - a partly imported module when autoload calls

    if not torch.distributed.is_available():
        _log.debug("this PyTorch was built without torch.distributed")
        return False
    found = getattr(importlib.import_module(_CORE), "ProcessGroupMPI", ProcessGroupMPI)
    if not found.__module__.startswith(__name__):
        _log.debug("this PyTorch was built with MPI: its own backend is left alone")
        return False
    if found is ProcessGroupMPI:
        _place(found)
    return True


def _place(cls: type) -> None:
    """Make `cls` the ProcessGroupMPI of torch's three modules."""
    for name in (_CORE, _API, _PACKAGE):
        vars(sys.modules[name])["ProcessGroupMPI"] = cls
    api = vars(sys.modules[_API])
    # What is_mpi_available() reads.
    api["_MPI_AVAILABLE"] = True
    if "ProcessGroupMPI" not in api["__all__"]:
        api["__all__"].append("ProcessGroupMPI")


def _load() -> Any:
    """Load the library, see that it fits, and put its class in the stand-in's place.

    Raises:
        RuntimeError: It does not fit, or does not load.
    """
    placed = vars(sys.modules[_CORE])["ProcessGroupMPI"]
    if placed is not ProcessGroupMPI:
        return placed
    build = _read_build()
    hint = f"glmpatch build-backend --mpi {build['flavour']} --force builds it anew"
    torch = sys.modules["torch"]
    if torch.__version__ != build["torch"]:
        raise RuntimeError(
            f"the MPI backend was built for torch {build['torch']}, and this is torch {torch.__version__}: {hint}"
        )
    wanted = f"{build['mpi']} {build['mpi_version']}"
    try:
        library = importlib.import_module("glmpatch_mpi._C")
    except ImportError as error:
        raise RuntimeError(
            f"the MPI backend does not load: {error}. It was built for {wanted} in {build['mpi_root']}; if that is"
            f" elsewhere here, put its libraries on LD_LIBRARY_PATH. Else: {hint}"
        ) from error
    found = " ".join(library.library_version().split())
    if not _begins(found, build["identity"]):
        raise RuntimeError(f"the MPI backend was built for {wanted}, and this process has {found[:100]}: {hint}")
    cls = library.ProcessGroupMPI
    create = cls.create
    cls.create = staticmethod(lambda ranks: create(list(ranks), _timeout()))
    atexit.register(library.stop)
    _place(cls)
    return cls


def _begins(library: str, identity: str) -> bool:
    """Whether the text of a library begins so, and goes on with no more of a version: 2021.18 is not 2021.18.1."""
    return re.match(rf"{re.escape(identity)}(?![\w.])", library) is not None


def _read_build() -> dict[str, str]:
    """What the library was built for.

    Raises:
        RuntimeError: The record is damaged.
    """
    file = Path(__file__).with_name("build.json")
    try:
        build = json.loads(file.read_text(encoding="utf-8"))
        return {name: build[name] for name in ("torch", "flavour", "mpi", "mpi_version", "mpi_root", "identity")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RuntimeError(
            f"the MPI backend is damaged: {file}: {error}: glmpatch build-backend --mpi intel|openmpi|mpich --force"
            " builds it anew"
        ) from error


def _timeout() -> timedelta:
    """The timeout of the group that is being made. PyTorch hands it to every backend but this one."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - there is no other way
    while frame is not None and frame.f_code.co_name != "_new_process_group_helper":
        frame = frame.f_back
    timeout = frame.f_locals.get("timeout") if frame is not None else None
    return timeout if isinstance(timeout, timedelta) else _DEFAULT_TIMEOUT
