"""The name of this host, a scheduler, and libraries that are faster: what lies around the ranks."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from glmpatch.doctor.row import Check, Row
from glmpatch.process import CommandFailedError, SilentError, stream

_NAME = Check("hostname", "Host name")
_SLURM = Check("slurm", "Slurm")
_LIBRARIES = Check("libraries", "Faster libraries")
# A name server that is away is asked for longer than anyone waits here.
_PATIENCE = 3
# Where the launch script looks, too.
_FOLDERS = (Path(sys.executable).parent.parent / "lib", Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"))
_OPENMP = ("libiomp5.so",)
_ALLOCATORS = ("libjemalloc.so.2", "libjemalloc.so", "libtcmalloc.so.4", "libtcmalloc.so", "libtcmalloc_minimal.so.4")
# Each address of a name, and whether it is one of this host.
_RESOLVE = """\
import socket, sys
for family, kind, protocol, _, address in socket.getaddrinfo(sys.argv[1], 0, type=socket.SOCK_STREAM):
    try:
        socket.socket(family, kind, protocol).bind(address)
        print(address[0], "here")
    except OSError:
        print(address[0], "elsewhere")
"""


def ask_name() -> tuple[str, dict[str, bool] | str]:
    """The name of this host, and its addresses with whether they are this host's; or why there are none."""
    name = socket.gethostname()
    try:
        lines = list(stream([sys.executable, "-I", "-S", "-c", _RESOLVE, name], silence=_PATIENCE))
    except SilentError:
        return name, f"no answer within {_PATIENCE} seconds"
    except CommandFailedError as error:
        return name, error.tail.strip().rpartition("\n")[2]
    return name, {address: where == "here" for address, _, where in (line.partition(" ") for line in lines)}


def hostname(name: str, addresses: dict[str, bool] | str) -> Row:
    """Whether the name of this host leads to this host: on several hosts, that is how the ranks find each other."""
    entry = f"127.0.1.1 {name}"
    if isinstance(addresses, str):
        return _NAME.warns(
            f"{name} does not resolve: {addresses}. One host is fine without, several are not",
            f"echo {shlex.quote(entry)} | sudo tee -a /etc/hosts",
        )
    if not any(addresses.values()):
        return _NAME.warns(
            f"{name} is {', '.join(addresses)}, which is no address of this host",
            f"sudo sed -i {shlex.quote(f'1i {entry}')} /etc/hosts",
        )
    return _NAME.passes(f"{name} is {', '.join(address for address, here in addresses.items() if here)}")


def slurm() -> Row:
    """Whether jobs go through Slurm."""
    if job := os.environ.get("SLURM_JOB_ID"):
        return _SLURM.passes(f"this is job {job} (SLURM_JOB_ID)")
    if program := shutil.which("sbatch"):
        return _SLURM.passes(f"{program}: glmpatch launch --slurm writes a job for it")
    return _SLURM.passes("not here: no sbatch on PATH")


def libraries() -> Row:
    """Whether there are those that the launch script preloads where it finds them. It does as well without."""
    found = [_first(names) for names in (_OPENMP, _ALLOCATORS)]
    there = ", ".join(str(file) for file in found if file)
    hints = ("libiomp5 (pip install intel-openmp)", "jemalloc or tcmalloc (Debian: apt-get install libjemalloc2)")
    missing = [hint for hint, file in zip(hints, found, strict=True) if file is None]
    hint = f"optional, and not here: {', '.join(missing)}" if missing else ""
    return _LIBRARIES.passes("; ".join(filter(None, [there, hint])))


def _first(names: tuple[str, ...]) -> Path | None:
    files = (folder / name for name in names for folder in _FOLDERS)
    return next((file for file in files if file.exists()), None)
