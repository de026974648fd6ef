from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.problem import Problem, require_none
from glmpatch.building.torch import preflight
from glmpatch.building.torch.find_mpi import search_mpi
from glmpatch.building.torch.options import TorchChoices, TorchOptions
from glmpatch.building.torch.preflight import (
    _problems_of_python,
    _problems_of_room,
    _used,
    _why_unreachable,
    notes_of_torch,
    problems_of_torch,
)
from glmpatch.errors import EnvironmentLacksError
from glmpatch.mpi.flavour import Search
from tests.building.torch.test_recipe import SMALL
from tests.git_support import make_folder, settings
from tests.mpi_support import installation

PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY")
MANAGED = Path("/usr/bin/python3")


_searched: dict[object, Search] = {}


def search_once(options: TorchOptions) -> Search:
    """A real search, but one for all tests: it takes longer than all the rest."""
    key = (options.flavour, options.mpi_root, options.prefix)
    return _searched.get(key) or _searched.setdefault(key, search_mpi(options))


class Machine:
    """What a test has, and what it takes away from it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = monkeypatch
        self._recipe = SMALL.replace("disk_gb = 1", "disk_gb = 1e-6").replace("job_gb = 0.5", "job_gb = 1e-6")
        self.choices: dict[str, Any] = {
            "work_dir": folder / "work",
            "url": str(folder),
            "mpi_root": installation("mpich").root,
        }
        for name in ("CXX", "CC", *PROXIES):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(preflight, "search_mpi", search_once)

    def wants(self, old: str, new: str) -> None:
        """Another line in the recipe."""
        assert old in self._recipe
        self._recipe = self._recipe.replace(old, new)

    def lacks(self, *programs: str) -> None:
        """A PATH with all that is there but these."""
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        for place in os.environ["PATH"].split(os.pathsep):
            for program in Path(place).iterdir() if Path(place).is_dir() else ():
                link = bin_folder / program.name
                if program.name not in programs and not link.is_symlink():
                    link.symlink_to(program)
        self._patch.setenv("PATH", str(bin_folder))

    @property
    def options(self) -> TorchOptions:
        (self.folder / "torch.toml").write_text(self._recipe)
        return TorchOptions(TorchChoices(**{"flavour": "mpich", "recipe": self.folder / "torch.toml", **self.choices}))

    @property
    def problems(self) -> list[Problem]:
        return list(problems_of_torch(self.options))

    @property
    def problem(self) -> Problem:
        """The only one."""
        (problem,) = self.problems
        assert problem.mend
        return problem


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """As somebody who may not write into that folder, even where the tests run as root."""
    user, mode = os.getuid(), folder.stat().st_mode
    folder.chmod(0o555)
    if user == 0:
        os.setreuid(65534, 0)
    try:
        yield
    finally:
        os.setreuid(user, user)
        folder.chmod(mode)


def test_a_machine_that_has_everything(machine: Machine) -> None:
    assert machine.problems == []
    assert not (machine.folder / "work").exists()


def test_no_git(machine: Machine) -> None:
    machine.lacks("git")
    assert machine.problem == Problem(
        "git is not installed", "install it (Debian: apt-get install git), or give a tree with --source"
    )
    machine.choices["source"] = make_folder(machine.folder / "tree", {"setup.py": b""})
    assert machine.problems == []


def test_no_tar(machine: Machine) -> None:
    machine.lacks("tar")
    assert machine.problems == []
    machine.choices["source"] = machine.folder / "x.tar.gz"
    machine.choices["source"].touch()
    assert machine.problem == Problem("tar is not installed", "install it (Debian: apt-get install tar)")


def test_no_compiler(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    problem = machine.problem
    assert problem.what == "there is no C++ compiler"
    assert "apt-get install g++" in problem.mend


def test_a_gcc_that_is_too_old(machine: Machine) -> None:
    if shutil.which("c++") is None:
        pytest.skip("needs a compiler")
    machine.wants('gcc = ">=9"', 'gcc = ">=99.1"')
    problem = machine.problem
    assert problem.what.startswith("gcc ")
    assert problem.what.endswith("does not compile torch 1.0.0: it takes >=99.1")
    assert "CXX=g++-12" in problem.mend


def test_another_compiler_is_not_judged(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.wants('gcc = ">=9"', 'gcc = ">=99.1"')
    clang = machine.folder / "a folder" / "clang++"
    make_folder(clang.parent, {"clang++": b"#!/bin/sh\necho '#define __GNUC__ 4\n#define __clang__ 1'\n"})
    clang.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{clang}' -m64")
    assert machine.problems == []
    clang.write_text('#!/bin/sh\ntest "$1 $2" = "-m64 --version"\n')
    assert machine.problems == []


def test_a_python_of_the_wrong_version(machine: Machine) -> None:
    machine.wants('python = ">=3.10"', 'python = ">=3.99"')
    here = ".".join(map(str, sys.version_info[:3]))
    assert machine.problem == Problem(
        f"torch 1.0.0 does not go with Python {here}: it takes >=3.99",
        "name an environment of another Python with --prefix, or another --torch-version",
    )


def script(machine: Machine, text: str) -> Path:
    """A prefix with a program for its Python."""
    prefix = machine.folder / "prefix"
    make_folder(prefix, {"bin/python": b"#!/bin/sh\n" + text.encode()})
    (prefix / "bin/python").chmod(0o755)
    machine.choices["prefix"] = prefix
    return prefix / "bin/python"


@pytest.mark.parametrize("text", ["exit 1", "echo hello"])
def test_a_python_that_does_not_run(machine: Machine, text: str) -> None:
    python = script(machine, text)
    problem = machine.problem
    assert problem.what.startswith(f"{python} does not run")
    assert problem.mend == "name another environment with --prefix"
    python.write_bytes(b"\x7fELF")
    assert machine.problem.what.startswith(f"{python} does not run")


def test_a_python_without_its_parts(machine: Machine) -> None:
    """As Debian packs it: the parts are packages of their own."""
    answer = f'["3.12.1", "/usr/include/python3.12/Python.h", false, false, "{machine.folder}", ["ensurepip"], true]'
    python = script(machine, f"echo '{answer}'")
    assert machine.problems == [
        Problem(
            "Python's headers are not installed: no /usr/include/python3.12/Python.h",
            "Debian: apt-get install python3.12-dev",
        ),
        Problem(f"{python} has no ensurepip", "Debian: apt-get install python3.12-venv"),
    ]


def test_an_environment_without_pip(machine: Machine) -> None:
    """As uv makes them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", machine.folder / "env"], check=True)
    machine.choices["prefix"] = machine.folder / "env"
    python = machine.folder / "env/bin/python"
    assert machine.problem == Problem(f"{python} has no pip", f"{python} -m ensurepip")


def test_an_environment_that_cannot_be_written(machine: Machine) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", machine.folder / "env"], check=True)
    (site,) = (machine.folder / "env").glob("lib/*/site-packages")
    # Root may write wherever there is a folder.
    site.rmdir()
    machine.choices["prefix"] = machine.folder / "env"
    assert machine.problem == Problem(
        f"{site} cannot be written to", "name a folder for an environment of its own with --prefix"
    )


def test_an_environment_that_cannot_be_made(machine: Machine) -> None:
    machine.choices["prefix"] = machine.folder / "new/env"
    assert machine.problems == []
    (machine.folder / "file").touch()
    machine.choices["prefix"] = machine.folder / "file/env"
    assert machine.problem == Problem(
        f"{machine.folder / 'file/env'} cannot be made", "name another folder with --prefix"
    )


def test_a_folder_that_is_no_environment(machine: Machine) -> None:
    prefix = machine.choices["prefix"] = machine.folder / "own"
    make_folder(prefix, {".glmpatch-mpi.lock": b""})
    assert machine.problems == []
    make_folder(prefix, {"letter.txt": b"x"})
    assert machine.problem == Problem(
        f"{prefix} is no environment: it has no bin/python, and is not empty", "name a new folder with --prefix"
    )


def test_an_environment_that_is_half_made(machine: Machine) -> None:
    python = script(machine, "exit 1")
    assert machine.problem.what.startswith(f"{python} does not run")
    (machine.folder / "prefix/.glmpatch-unfinished").touch()
    assert machine.problems == []


def test_the_python_of_the_system(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = "import os, sysconfig; print(os.path.exists(sysconfig.get_path('stdlib') + '/EXTERNALLY-MANAGED'))"
    if not MANAGED.exists() or subprocess.check_output([MANAGED, "-c", ask]) != b"True\n":
        pytest.skip("needs a system that keeps its Python to itself")
    (machine.folder / "env/bin").mkdir(parents=True)
    python = machine.folder / "env/bin/python"
    python.symlink_to(MANAGED)
    machine.choices["prefix"] = machine.folder / "env"
    told = Problem(
        f"{python} is the system's, which lets nobody but its own packages in",
        "name a folder for an environment of its own with --prefix",
    )
    assert told in _problems_of_python(machine.options)
    # That was done: the environment is still to be made, with that Python.
    machine.choices["prefix"] = machine.folder / "new"
    monkeypatch.setattr("sys.executable", str(python))
    assert told not in _problems_of_python(machine.options)


def test_no_room(machine: Machine) -> None:
    machine.wants("disk_gb = 1e-6", "disk_gb = 1e9")
    problem = machine.problem
    assert problem.what.startswith(f"{machine.folder} has ")
    assert problem.what.endswith(" GB left, and the build takes 1000000000.0 GB more")
    assert "--work-dir" in problem.mend


def test_what_the_build_has_taken_already_counts(machine: Machine) -> None:
    work = machine.folder / "work"
    assert _used(work) == 0
    make_folder(work, {"source/a": b"x" * 1_000_000, "state/lock": b""})
    (work / "source/b").symlink_to("nowhere")
    assert 1_000_000 <= _used(work) < 1_200_000
    with (work / "source/large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000_000)
    machine.wants("disk_gb = 1e-6", "disk_gb = 1e9")
    (problem,) = _problems_of_room(machine.options)
    assert problem.what.endswith("the build takes 999999999.9 GB more")


def test_no_memory(machine: Machine) -> None:
    machine.wants("job_gb = 1e-6", "job_gb = 1e6")
    (problem,) = _problems_of_room(machine.options)
    assert "GB of memory are free, and 1 compilers can take 1000000.0 GB" in problem.what
    assert problem.mend == "free some memory"
    machine.choices["jobs"] = 3
    (problem,) = _problems_of_room(machine.options)
    assert "3 compilers can take 3000000.0 GB" in problem.what
    assert problem.mend == "free some memory, or take fewer --jobs"


def test_a_folder_that_cannot_be_written(machine: Machine) -> None:
    with nobody(machine.folder):
        (problem,) = _problems_of_room(machine.options)
    assert problem == Problem(f"{machine.folder} cannot be written to", "name another folder with --work-dir")
    machine.choices["work_dir"] = machine.folder / "file/work"
    (machine.folder / "file").touch()
    assert "file cannot be written to" in machine.problem.what


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_folder_where_no_program_runs(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from glmpatch.building.torch.options import TorchChoices, TorchOptions
from glmpatch.building.torch.preflight import _problems_of_room
print(*_problems_of_room(TorchOptions(TorchChoices(flavour="mpich", work_dir=Path(sys.argv[1], "work")))))
"""
    mounted = 'mount -t tmpfs -o noexec none "$0" && exec "$@" "$0"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(tmp_path), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert f"{tmp_path} is mounted so that no program in it runs" in done.stdout


def test_a_source_that_is_none(machine: Machine) -> None:
    machine.choices["source"] = machine.folder / "source.tar.gz"
    assert machine.problem.what == f"{machine.folder}/source.tar.gz is not there"
    machine.choices["source"].mkdir()
    assert machine.problem.what.endswith("is no source tree of PyTorch: it has no setup.py")
    machine.choices["source"] = machine.folder / "torch.zip"
    machine.choices["source"].touch()
    assert machine.problem.what == f"{machine.folder}/torch.zip is no tarball"


def test_a_tarball_of_the_wrong_checksum(machine: Machine) -> None:
    tarball = machine.folder / "x.tar"
    tarball.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    machine.choices |= {"source": tarball, "sha256": digest.upper()}
    assert machine.problems == []
    machine.choices["sha256"] = "0" * 64
    assert machine.problem == Problem(f"{tarball} has the checksum {digest}, not {'0' * 64}", "get the right file")


@pytest.fixture
def closed() -> Iterator[str]:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/pytorch"


def test_no_network(machine: Machine, closed: str) -> None:
    machine.choices["url"] = closed
    assert machine.problem == Problem(
        f"{closed} cannot be reached: Connection refused",
        "see to the network, set https_proxy, or give a clone with --source",
    )


@pytest.mark.parametrize("proxy", PROXIES)
def test_behind_a_proxy_nothing_is_asked(
    machine: Machine, closed: str, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    machine.choices["url"] = closed
    monkeypatch.setenv(proxy, "http://proxy.example.org")
    assert machine.problems == []


@pytest.mark.parametrize(
    "setting",
    [
        "[http]\n\tproxy = http://proxy.example.org\n",
        '[http "http://127.0.0.1"]\n\tproxy = http://proxy.example.org\n',
        '[url "https://mirror.example.org/"]\n\tinsteadOf = http://\n',
    ],
)
def test_where_git_goes_another_way_nothing_is_asked(
    machine: Machine, closed: str, neutral_environment: Path, setting: str
) -> None:
    machine.choices["url"] = closed
    with settings(neutral_environment, setting):
        assert machine.problems == []
    with settings(neutral_environment, "[http]\n\tproxyAuthMethod = basic\n"):
        assert machine.problem


def test_a_host_that_answers(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        machine.choices["url"] = f"http://127.0.0.1:{server.getsockname()[1]}/pytorch"
        assert machine.problems == []
    machine.choices["url"] = "ssh://127.0.0.1:9/x"
    assert machine.problems == []


def test_a_host_that_does_not_answer() -> None:
    """An address for documents, which no host has."""
    begin = time.monotonic()
    assert _why_unreachable("192.0.2.1", 443)
    assert time.monotonic() - begin < 1.5
    assert _why_unreachable("no-such-host.invalid", 443)


_RESOLVE = """\
import sys, time
from glmpatch.building.torch.preflight import _why_unreachable
begin = time.monotonic()
print(_why_unreachable("example.org", 443), time.monotonic() - begin < 1.5)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_name_server_that_does_not_answer(tmp_path: Path) -> None:
    """It swallows all that it is asked."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.77.0.53\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    code = 'for name in resolv nsswitch; do mount --bind "$1/$name.conf" "/etc/$name.conf" || exit 9; done; '
    code += 'shift; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", code, "sh", str(tmp_path), sys.executable, "-c", _RESOLVE]
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.77.0.53", 53))
        except OSError as error:
            pytest.skip(f"needs a port for a name server: {error}")
        begin = time.monotonic()
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begin
        server.settimeout(0)
        if asked.returncode in {1, 9}:
            pytest.skip(f"may not mount: {asked.stderr}")
        assert b"example" in server.recv(512)
    assert asked.stdout == "no answer within 1 s True\n"
    # Nor does the program wait for the answer when it ends.
    assert seconds < 5


def test_no_mpi(machine: Machine) -> None:
    machine.choices["mpi_root"] = machine.folder
    problem = machine.problem
    assert problem.what == f"{machine.folder} has no bin/mpirun"
    assert problem.mend == "name the folder that holds MPICH's bin/mpirun, or leave --mpi-root out"


def test_another_mpi_in_the_environment(machine: Machine) -> None:
    machine.choices |= {"mpi_root": None, "prefix": machine.folder / "env", "flavour": "openmpi"}
    (machine.folder / "env/lib/python3.11/site-packages/mpich-5.0.2.dist-info").mkdir(parents=True)
    found = [problem for problem in machine.problems if "holds mpich" in problem.what]
    if not found:
        pytest.skip("this machine has an MPI of its own")
    assert "whose files have the names of Open MPI's" in found[0].what
    assert found[0].mend.startswith(f"{machine.folder}/env/bin/python -m pip uninstall mpich, or name an MPI")


def test_all_at_once_on_a_bare_machine(machine: Machine, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.folder / "bare").mkdir()
    monkeypatch.setenv("PATH", str(machine.folder / "bare"))
    for old, new in [("disk_gb = 1e-6", "disk_gb = 1e9"), ("job_gb = 1e-6", "job_gb = 1e6"), (">=3.10", ">=3.99")]:
        machine.wants(old, new)
    machine.choices |= {"url": closed, "mpi_root": machine.folder}
    begin = time.monotonic()
    problems = machine.problems
    assert time.monotonic() - begin < 2
    with pytest.raises(EnvironmentLacksError) as caught:
        require_none(problems, "torch 1.0.0")
    first, *lines = caught.value.message.splitlines()
    assert first == "torch 1.0.0 cannot be built here:"
    for told in (
        *(
            "git is not installed",
            "there is no C++ compiler",
            "does not go with Python",
            "GB left, and the build takes",
        ),
        *("GB of memory are free", "cannot be reached: Connection refused", "has no bin/mpirun"),
    ):
        assert told in lines.pop(0)
        assert lines.pop(0).startswith("    mend: ")
    assert lines == []


def test_what_is_good_to_know(machine: Machine) -> None:
    machine.lacks("ccache")
    (note,) = notes_of_torch(machine.options)
    assert note.startswith("ccache is not installed")
    (machine.folder / "bin/ccache").symlink_to(sys.executable)
    assert list(notes_of_torch(machine.options)) == []
    (machine.folder / "work").mkdir()
    assert list(notes_of_torch(machine.options)) == []
    make_folder(machine.folder / "work", {"state/lock": b""})
    machine.choices["mpi_root"] = machine.folder
    assert list(notes_of_torch(machine.options)) == [
        f"pass over an MPI: {machine.folder} has no bin/mpirun",
        f"go on with the build in {machine.folder / 'work'}",
    ]
    assert f"begin the build anew in {machine.folder / 'work'}" in notes_of_torch(machine.options, fresh=True)
