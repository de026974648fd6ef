"""Looks, before hours of work, at all that a build of PyTorch needs, and tells everything that is missing at once."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from packaging.specifiers import SpecifierSet

from glmpatch.building.packages import mpi_packages
from glmpatch.building.problem import Problem
from glmpatch.building.toolchain import find_compiler
from glmpatch.building.torch.find_mpi import search_mpi
from glmpatch.building.torch.jobs import usable_memory
from glmpatch.building.torch.options import TorchOptions
from glmpatch.building.torch.source import checksum
from glmpatch.errors import EnvironmentLacksError, GlmpatchError
from glmpatch.git_commands import hardened_git
from glmpatch.mpi import FLAVOURS
from glmpatch.process import stream

_GB = 1_000_000_000
_SECONDS = 1.0
_GCC = ("__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__")
# As build/torch_tool.py knows them: our own files in an environment, and the one in what it was killed over.
_OURS = ".glmpatch-"
_UNFINISHED = f"{_OURS}unfinished"
_TARBALLS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
_ASK_PYTHON = """\
import importlib.util, json, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
stdlib, purelib = (sysconfig.get_path(name) for name in ("stdlib", "purelib"))
pip = importlib.util.find_spec("pip") is not None
managed = sys.prefix == sys.base_prefix and os.path.exists(os.path.join(stdlib, "EXTERNALLY-MANAGED"))
missing = []
for module in ("venv", "ensurepip"):
    try:
        __import__(module)
    except ImportError:
        missing.append(module)
print(json.dumps(["%d.%d.%d" % sys.version_info[:3], header, os.path.isfile(header), managed, purelib, missing, pip]))
"""


def problems_of_torch(options: TorchOptions) -> Iterator[Problem]:
    """All that keeps PyTorch from being built here."""
    yield from _problems_of_tools(options)
    yield from _problems_of_python(options)
    yield from _problems_of_room(options)
    yield from _problems_of_source(options)
    yield from _problems_of_mpi(options)


def _problems_of_tools(options: TorchOptions) -> Iterator[Problem]:
    if options.source is None and shutil.which("git") is None:
        yield Problem("git is not installed", "install it (Debian: apt-get install git), or give a tree with --source")
    if options.source is not None and options.source.is_file() and shutil.which("tar") is None:
        yield Problem("tar is not installed", "install it (Debian: apt-get install tar)")
    compiler = find_compiler()
    if compiler is None:
        yield Problem(
            "there is no C++ compiler", "install one (Debian: apt-get install g++), or name one in CXX and CC"
        )
        return
    version = _gcc_version(compiler.command)
    if version and version not in SpecifierSet(options.torch.gcc):
        yield Problem(
            f"gcc {version} does not compile torch {options.version}: it takes {options.torch.gcc}",
            "install another one and name it in CXX and CC (CXX=g++-12 CC=gcc-12), or take another --torch-version",
        )


def _gcc_version(command: str) -> str | None:
    """The version of a gcc; None for another compiler, which is not judged."""
    try:
        macros = "\n".join(stream([*shlex.split(command), "-dM", "-E", "-x", "c++", "/dev/null"]))
    except GlmpatchError:
        return None
    found = {name: re.search(rf"^#define {name} (\d+)$", macros, re.MULTILINE) for name in _GCC}
    if "__clang__" in macros or not all(found.values()):
        return None
    return ".".join(match[1] for match in found.values() if match)


def _problems_of_python(options: TorchOptions) -> Iterator[Problem]:
    """Python and its headers; that of the prefix, or ours if the prefix is still to be made."""
    there = options.python.exists() and not (options.prefix / _UNFINISHED).exists()
    python = options.python if there else options.base_python
    try:
        answer = json.loads("\n".join(stream([str(python), "-I", "-c", _ASK_PYTHON])))
    except (GlmpatchError, OSError, ValueError) as error:
        yield Problem(f"{python} does not run: {error}", "name another environment with --prefix")
        return
    version, header, has_header, managed, purelib, missing, pip = answer
    if version not in SpecifierSet(options.torch.python):
        yield Problem(
            f"torch {options.version} does not go with Python {version}: it takes {options.torch.python}",
            "name an environment of another Python with --prefix, or another --torch-version",
        )
    short = version.rpartition(".")[0]
    if not has_header:
        yield Problem(f"Python's headers are not installed: no {header}", f"Debian: apt-get install python{short}-dev")
    if missing:
        yield Problem(f"{python} has no {' and no '.join(missing)}", f"Debian: apt-get install python{short}-venv")
    apart = "name a folder for an environment of its own with --prefix"
    if not there:
        yield from _problems_of_new(options.prefix)
    elif managed:
        yield Problem(f"{python} is the system's, which lets nobody but its own packages in", apart)
    elif not os.access(purelib, os.W_OK):
        yield Problem(f"{purelib} cannot be written to", apart)
    elif not pip:
        yield Problem(f"{python} has no pip", f"{python} -m ensurepip")


def _problems_of_new(prefix: Path) -> Iterator[Problem]:
    """What keeps an environment from being made in a folder."""
    if not os.access(_there(prefix), os.R_OK | os.W_OK | os.X_OK):
        yield Problem(f"{prefix} cannot be made", "name another folder with --prefix")
        return
    names = [path.name for path in prefix.glob("*")]
    if _UNFINISHED not in names and any(not name.startswith(_OURS) for name in names):
        yield Problem(
            f"{prefix} is no environment: it has no bin/python, and is not empty", "name a new folder with --prefix"
        )


def _problems_of_room(options: TorchOptions) -> Iterator[Problem]:
    folder = _there(options.folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Problem(f"{folder} cannot be written to", "name another folder with --work-dir")
        return
    status = os.statvfs(folder)
    if status.f_flag & os.ST_NOEXEC:
        yield Problem(f"{folder} is mounted so that no program in it runs", "name another folder with --work-dir")
    free, used = status.f_bavail * status.f_frsize, _used(options.folder)
    needed = options.torch.disk_gb * _GB - used
    if free < needed:
        yield Problem(
            f"{folder} has {free / _GB:.1f} GB left, and the build takes {needed / _GB:.1f} GB more",
            "free some space, or name a folder on another disk with --work-dir",
        )
    memory = usable_memory()
    jobs = options.choices.jobs or 1
    if memory < jobs * options.torch.job_gb * _GB:
        yield Problem(
            f"{memory / _GB:.1f} GB of memory are free, and {jobs} compilers can take"
            f" {jobs * options.torch.job_gb:.1f} GB",
            "free some memory" + (", or take fewer --jobs" if jobs > 1 else ""),
        )


def _problems_of_source(options: TorchOptions) -> Iterator[Problem]:
    source = options.source
    if source is None:
        yield from _problems_of_network(options.origin)
    elif source.is_dir():
        if not (source / "setup.py").is_file():
            yield Problem(f"{source} is no source tree of PyTorch: it has no setup.py", "name one with --source")
    elif not source.is_file():
        yield Problem(f"{source} is not there", "name a source tree or a tarball with --source")
    elif not source.name.endswith(_TARBALLS):
        yield Problem(f"{source} is no tarball", f"give a tree, or a file that ends in one of {' '.join(_TARBALLS)}")
    elif options.choices.sha256 and (found := checksum(source)) != options.choices.sha256.lower():
        yield Problem(f"{source} has the checksum {found}, not {options.choices.sha256}", "get the right file")


def _problems_of_network(url: str) -> Iterator[Problem]:
    """Whether the host answers. Where git goes another way nothing is asked: it knows more hosts than we can reach."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY")):
        return
    if _git_goes_another_way():
        return
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    reason = _why_unreachable(parts.hostname, port)
    if reason:
        yield Problem(
            f"{url} cannot be reached: {reason}",
            "see to the network, set https_proxy, or give a clone with --source",
        )


def _git_goes_another_way() -> bool:
    """Whether git's own settings name a proxy, or another host in the place of this one."""
    try:
        return bool(hardened_git(Path("/")).config("--get-regexp", r"^(http\.(.*\.)?proxy|url\..*\.insteadof)$"))
    except EnvironmentLacksError:
        return False


def _why_unreachable(host: str, port: int) -> str:
    """Why a host does not answer; empty if it does."""
    reasons = [f"no answer within {_SECONDS:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_SECONDS).close()
            reasons.append("")
        except OSError as error:
            reasons.append(error.strerror or str(error))

    # In a thread: nothing ends a look-up of a name, and where no name server answers it takes many seconds.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return reasons[-1]


def _problems_of_mpi(options: TorchOptions) -> Iterator[Problem]:
    search = search_mpi(options)
    if search.installation:
        return
    flavour = FLAVOURS[options.flavour]
    if options.mpi_root:
        yield Problem(
            "; ".join(search.passed_over) or f"{options.mpi_root} has no MPI",
            f"name the folder that holds {flavour.title}'s bin/mpirun, or leave --mpi-root out",
        )
        return
    for other in FLAVOURS:
        for package in mpi_packages(other) if other != options.flavour else ():
            name = package.partition("==")[0].replace("-", "_")
            if any(options.prefix.glob(f"lib*/python*/site-packages/{name}-*.dist-info")):
                yield Problem(
                    f"{options.prefix} holds {package}, whose files have the names of {flavour.title}'s",
                    f"{options.python} -m pip uninstall {package.partition('==')[0]}, or name an MPI with --mpi-root",
                )


def notes_of_torch(options: TorchOptions, *, fresh: bool = False) -> Iterator[str]:
    """What is no problem, and good to know."""
    if shutil.which("ccache") is None:
        yield "ccache is not installed: with it, what is built once more takes minutes (Debian: apt-get install ccache)"
    for reason in search_mpi(options).passed_over:
        yield f"pass over an MPI: {reason}"
    if (options.folder / "state" / "lock").exists():
        yield f"{'begin the build anew' if fresh else 'go on with the build'} in {options.folder}"


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _used(folder: Path) -> int:
    """The bytes that an earlier run of the build has taken already."""
    if not folder.is_dir():
        return 0
    used = 0
    for base, _, files in os.walk(folder):
        for name in files:
            # Gone again, if a build is at work there. That is told when the folder is locked.
            with suppress(FileNotFoundError):
                used += Path(base, name).lstat().st_blocks * 512
    return used
