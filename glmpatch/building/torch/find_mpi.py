"""The MPI that PyTorch is built against: one that is there, or the one that will be installed into the prefix."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glmpatch.building.packages import mpi_packages
from glmpatch.building.torch.options import TorchOptions
from glmpatch.mpi import FLAVOURS, Flavour
from glmpatch.mpi.flavour import Installation, Search

_ALREADY = "already there"


@dataclass(frozen=True, slots=True)
class TargetMpi:
    """An MPI, there or to come.

    Attributes:
        flavour: Which one.
        root: The folder that holds its `bin`.
        installation: It, if it is there.
        elsewhere: Whether it is the user's own, so that there is nothing to install.
        environment: The variables that it needs.
        search: The folders that it needs in variables like PATH.
    """

    flavour: Flavour
    root: Path
    installation: Installation | None
    elsewhere: bool
    environment: dict[str, str]
    search: dict[str, tuple[str, ...]]

    def launch(self, ranks: int, command: Sequence[str]) -> list[str]:
        """The command that runs `command` as so many ranks on this host."""
        if self.installation:
            return self.installation.launch(ranks, command)
        return [str(self.root / "bin" / "mpirun"), *self.flavour.launch_options(), "-n", str(ranks), *command]


def find_mpi(options: TorchOptions) -> TargetMpi:
    """The MPI that `--mpi-root` names, else one on this machine, else the one of the package index in the prefix."""
    flavour = FLAVOURS[options.flavour]
    found = search_mpi(options).installation
    elsewhere = found is not None and not _is_package(options)
    root = found.root if found and elsewhere else options.prefix
    return TargetMpi(flavour, root, found, elsewhere, *_split(flavour, root))


def search_mpi(options: TorchOptions) -> Search:
    """Look for an installation: in the prefix first, and not in the environment of another program."""
    flavour = FLAVOURS[options.flavour]
    if options.mpi_root:
        return flavour.search(options.mpi_root)
    in_prefix = flavour.search(options.prefix)
    if in_prefix.installation or _is_package(options):
        return in_prefix
    # glmpatch's own environment may be gone when the PyTorch in another one is used.
    return flavour.search(but=Path(sys.prefix))


def _is_package(options: TorchOptions) -> bool:
    """Whether the prefix has the MPI of the package index."""
    names = [package.partition("==")[0].replace("-", "_") for package in mpi_packages(options.flavour)]
    return options.mpi_root is None and any(options.prefix.glob(f"lib*/python*/site-packages/{names[0]}-*.dist-info"))


def _split(flavour: Flavour, root: Path) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """What the MPI needs, apart from what the machine has: plain variables, and folders that go before others."""
    paths = {"PATH": _ALREADY, "LD_LIBRARY_PATH": _ALREADY}
    whole = flavour.environment(root, paths)
    search = {
        name: tuple(folder for folder in whole[name].split(os.pathsep) if folder != _ALREADY)
        for name in paths
        if whole[name] != _ALREADY
    }
    return {name: value for name, value in whole.items() if name not in paths}, search
