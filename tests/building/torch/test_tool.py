from __future__ import annotations

import ast
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from glmpatch.assets import asset_folder
from tests.building.torch.standin_support import make_repository
from tests.git_support import git, make_folder, snapshot

TOOL = asset_folder("build") / "torch_tool.py"


def load() -> Any:
    spec = spec_from_file_location("torch_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


main = load().main


def test_runs_by_itself_with_any_python(tmp_path: Path) -> None:
    tree = ast.parse(TOOL.read_bytes(), feature_version=(3, 8))
    imported = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    (tmp_path / "file").touch()
    copy = tmp_path / "torch_tool.py"
    copy.write_bytes(TOOL.read_bytes())
    command = [sys.executable, "-I", str(copy), "checksum", str(tmp_path / "file")]
    assert subprocess.run([*command, hashlib.sha256().hexdigest()], check=False).returncode == 0
    wrong = subprocess.run([*command, "0" * 64], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(f"{tmp_path / 'file'} does not have the checksum 000")


def test_no_such_command() -> None:
    assert main("configure", "/") == "there is no command configure"


def test_checksum(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert main("checksum", str(file), digest) is None
    assert main("checksum", str(file), digest.upper()) is None
    file.write_bytes(b"y")
    assert f"{file} does not have the checksum {digest}, but " in str(main("checksum", str(file), digest))
    assert "No such file" in str(main("checksum", str(tmp_path / "missing"), digest))


def installs_pip(folder: Path) -> bool:
    """Whether a Python of the environment is at work on it."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program, *arguments = file.read_bytes().split(b"\0")
            if program.startswith(os.fsencode(folder)) and b"ensurepip" in arguments:
                return True
    return False


def killed_when(command: list[str], there: Callable[[], bool]) -> None:
    """Start a program, and kill it and all that it has started as soon as something is there."""
    with subprocess.Popen(command, start_new_session=True) as process:
        end = time.monotonic() + 60
        while not there() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_an_environment_that_was_killed_half_made_is_made_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep/env"
    # What keeps other builds out is there before.
    make_folder(folder, {".glmpatch-mpi.lock": b""})
    command = [sys.executable, str(TOOL), "environment", str(folder)]
    killed_when(command, lambda: os.access(folder / "bin/python", os.X_OK))
    assert not list(folder.glob("lib/*/site-packages/*"))
    assert (folder / ".glmpatch-unfinished").exists()
    # Not to its end, for the sake of time: it is enough to see that pip is on its way now.
    killed_when(command, lambda: installs_pip(folder))


def test_what_others_have_is_no_place_for_an_environment(tmp_path: Path) -> None:
    make_folder(tmp_path, {"bin/tool": b"x", "unfinished": b"a user's"})
    before = snapshot(tmp_path)
    assert main("environment", str(tmp_path)) == f"{tmp_path} is no environment, and not empty"
    assert snapshot(tmp_path) == before


def test_an_environment_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (tmp_path / "env/unfinished").touch()
    before = snapshot(tmp_path)
    assert main("environment", str(tmp_path / "env")) is None
    assert snapshot(tmp_path) == before


def test_a_source_that_is_whole(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    git(repository.path, "checkout", "--quiet", "--detach")
    version = (repository.path / "version.txt").read_text().strip()
    assert main("source", str(repository.path), version, repository.commit) is None
    assert main("source", str(repository.path), version) is None
    assert f"not at {'1' * 40}" in str(main("source", str(repository.path), version, "1" * 40))
    assert f"is the source of torch {version}, not of 1.0.0" in str(main("source", str(repository.path), "1.0.0"))
    git(tmp_path, "clone", "--quiet", str(repository.path), "clone")
    missing = tmp_path / "clone/third_party/tiny"
    assert main("source", str(tmp_path / "clone"), version) == f"these submodules are not there: {missing}"
    missing.rmdir()
    assert main("source", str(tmp_path / "clone"), version) == f"these submodules are not there: {missing}"


def test_what_is_no_source(tmp_path: Path) -> None:
    assert "version.txt" in str(main("source", str(tmp_path), "2.13.0"))


def test_submodules_of_submodules(tmp_path: Path) -> None:
    """However the lines of the file are indented."""
    modules = '[submodule "{0}"]\n\tignore = dirty\n    path = {0}\n\t\turl = https://example.org/50%.git\n'
    files = {
        "version.txt": "2.6.0a0+git1234\n",
        ".gitmodules": modules.format("a") + modules.format("b"),
        "a/file": "",
        "b/.gitmodules": modules.format("c").replace("\n", "\r\n"),
        "b/c/.git": "gitdir: elsewhere\n",
    }
    make_folder(tmp_path, {path: text.encode() for path, text in files.items()})
    assert main("source", str(tmp_path), "2.6.0") == f"these submodules are not there: {tmp_path / 'b/c'}"
    (tmp_path / "b/c/file").touch()
    assert main("source", str(tmp_path), "2.6.0") is None


# As CMake writes it for Intel MPI, which asks for libraries of the system, too.
CACHE = """\
# This is the CMakeCache file.
//Path to a library.
MPI_dl_LIBRARY:FILEPATH=/usr/lib/x86_64-linux-gnu/libdl.a
MPI_mpi_LIBRARY:FILEPATH={root}/lib/libmpi.so
MPI_mpicxx_LIBRARY:FILEPATH={root}/lib/libmpicxx.so
//ADVANCED property for variable: MPI_mpi_LIBRARY
MPI_mpi_LIBRARY-ADVANCED:INTERNAL=1
MPI_rt_LIBRARY:FILEPATH=/usr/lib/x86_64-linux-gnu/librt.a
USE_MPI:BOOL={use}
"""


@pytest.mark.parametrize("use", ["ON", "1", "TRUE"])
def test_configured(tmp_path: Path, capsys: pytest.CaptureFixture[str], use: str) -> None:
    (tmp_path / "CMakeCache.txt").write_text(CACHE.format(root=tmp_path / "mpi", use=use))
    (tmp_path / "link").symlink_to(tmp_path / "mpi")
    assert main("configured", str(tmp_path), str(tmp_path / "link")) is None
    mpi = tmp_path / "mpi/lib"
    assert capsys.readouterr().out == f"MPI: {mpi}/libmpi.so {mpi}/libmpicxx.so\n"


@pytest.mark.parametrize("use", ["OFF", "0", "off", "FALSE", ""])
def test_configured_without_mpi(tmp_path: Path, use: str) -> None:
    (tmp_path / "CMakeCache.txt").write_text(CACHE.format(root=tmp_path, use=use))
    assert main("configured", str(tmp_path), str(tmp_path)) == "CMake found no MPI: USE_MPI is OFF"


def test_configured_with_another_mpi(tmp_path: Path) -> None:
    cache = tmp_path / "CMakeCache.txt"
    cache.write_text(CACHE.format(root="/opt/other", use="ON"))
    message = f"CMake found another MPI: /opt/other/lib/libmpi.so is not in {tmp_path}"
    assert main("configured", str(tmp_path), str(tmp_path)) == message
    cache.write_text("MPI_mpi_LIBRARY:FILEPATH=MPI_mpi_LIBRARY-NOTFOUND\nUSE_MPI:BOOL=ON\n")
    assert "no library of it" in str(main("configured", str(tmp_path), str(tmp_path)))
    cache.write_text("#USE_MPI:BOOL=ON\n")
    assert "USE_MPI is OFF" in str(main("configured", str(tmp_path), str(tmp_path)))
    cache.unlink()
    assert "CMakeCache.txt" in str(main("configured", str(tmp_path), str(tmp_path)))


def test_of_two_mpis_in_one_folder_the_expected(tmp_path: Path) -> None:
    for name in ("libmpi.so", "libmpich.so"):
        (tmp_path / name).touch()
    cache = f"USE_MPI:BOOL=ON\nMPI_mpi_LIBRARY:FILEPATH={tmp_path / 'libmpi.so'}\n"
    (tmp_path / "CMakeCache.txt").write_text(cache)
    folder = str(tmp_path)
    assert main("configured", folder, folder, str(tmp_path / "libmpi.so")) is None
    assert "CMake found another MPI: " in str(main("configured", folder, folder, str(tmp_path / "libmpich.so")))
