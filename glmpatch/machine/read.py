"""Reads the machine that the user means."""

from __future__ import annotations

import os
from pathlib import Path

from glmpatch.errors import UsageError
from glmpatch.machine import hwloc, presets
from glmpatch.machine.safe_xml import MOST_BYTES
from glmpatch.machine.sysfs import read_machine
from glmpatch.machine.topology import Topology


def read_topology(what: str | None, *, root: Path = Path("/")) -> Topology:
    """Read a machine.

    Args:
        what: The name of a preset, else the path of an XML file of hwloc. None for this machine.
        root: Where `proc` and `sys` of this machine are.

    Raises:
        UsageError: There is no such preset or file, or it is not one of hwloc.
        EnvironmentLacksError: Nothing tells which CPUs this machine has.
    """
    if what is None:
        return read_machine(root)
    if what in presets.names():
        return presets.load(what)
    file = Path(what)
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{what}: there is no preset and no file of that name", hint=presets.hint(what)) from None
    except OSError as error:
        raise UsageError(f"{what}: {error.strerror}", hint=presets.hint(what)) from None
    # A name that is not UTF-8 could not be shown.
    return hwloc.parse(data, os.fsencode(what).decode(errors="replace"))
