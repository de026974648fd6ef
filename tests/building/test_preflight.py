from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.building import preflight
from glmpatch.building.backend import BackendOptions, build_backend
from glmpatch.building.preflight import (
    TorchFacts,
    ask_torch,
    problems_of_folders,
    problems_of_mpi,
    problems_of_tools,
    problems_of_torch,
)
from glmpatch.building.problem import Problem
from glmpatch.building.toolchain import Compiler
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import Search
from tests.building.conftest import Venv

COMPILER = Compiler("c++", "c++ 12")
NOTHING = Search(None, ())


def torch_like(folder: Path, code: str) -> Path:
    """A package called torch, for this process and those that it starts."""
    (folder / "torch/distributed").mkdir(parents=True)
    (folder / "torch/__init__.py").write_text(f"{code}\n__version__ = '2.4.1+cpu'\n")
    (folder / "torch/distributed/__init__.py").write_text("def is_available(): return False\n")
    return folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first for every Python."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return tmp_path


def test_the_torch_that_is_there() -> None:
    torch = pytest.importorskip("torch")
    assert ask_torch() == TorchFacts(torch.__version__, distributed=True, own_mpi=False)
    assert list(problems_of_torch(ask_torch())) == []


def test_there_is_no_torch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(path)])
    problem = ask_torch()
    assert list(problems_of_torch(problem)) == [problem]
    assert isinstance(problem, Problem)
    assert problem.mend == f"{sys.executable} -m pip install torch"


def test_a_torch_that_does_not_import_is_told_by_its_last_words(path: Path) -> None:
    torch_like(path, "raise OSError('libcudart.so.12: cannot open shared object file')")
    problem = ask_torch()
    assert isinstance(problem, Problem)
    assert problem.what.endswith("OSError: libcudart.so.12: cannot open shared object file")


def test_a_torch_that_is_too_old(path: Path) -> None:
    torch_like(path, "")
    (problem,) = problems_of_torch(ask_torch())
    assert "torch 2.4.1+cpu" in problem.what
    assert "torch>=2.5" in problem.mend


def test_a_torch_that_talks_is_understood(path: Path) -> None:
    torch_like(path, "print('welcome', end=' ')")
    assert ask_torch() == TorchFacts("2.4.1+cpu", distributed=False, own_mpi=False)


def test_what_lies_in_the_folder_we_are_in_is_not_taken_for_torch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout of PyTorch."""
    torch_like(path, "")
    torch_like(path / "checkout", "raise ImportError('not the sources')")
    (path / "checkout/json.py").write_text("raise ImportError('not that json')")
    monkeypatch.chdir(path / "checkout")
    assert ask_torch() == TorchFacts("2.4.1+cpu", distributed=False, own_mpi=False)


@pytest.mark.parametrize("version", ["2.5.0", "2.5.0a0+git1", "2.13.0.dev20260101+cpu", "3.0.0"])
def test_a_torch_that_is_new_enough(version: str) -> None:
    assert list(problems_of_torch(TorchFacts(version, distributed=True, own_mpi=False))) == []


def test_a_torch_without_its_distributed_part() -> None:
    (problem,) = problems_of_torch(TorchFacts("2.13.0", distributed=False, own_mpi=False))
    assert "torch.distributed" in problem.what


def test_every_tool_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert list(problems_of_tools(COMPILER)) == []
    monkeypatch.setattr("sysconfig.get_path", lambda _kind: str(tmp_path))
    monkeypatch.setattr(preflight, "tool_path", lambda: str(tmp_path))
    monkeypatch.setattr(preflight, "version", lambda _name: "65.5.0")
    what = [problem.what for problem in problems_of_tools(None)]
    assert what == [
        "there is no C++ compiler",
        f"Python's headers are not installed: no {tmp_path / 'Python.h'}",
        "ninja is not installed",
        "setuptools 65.5.0 cannot make a wheel by itself",
    ]
    monkeypatch.setenv("CXX", "icpx")
    monkeypatch.setattr(sys, "path", [])
    assert "icpx" in next(problems_of_tools(None)).what


def test_without_setuptools(venv: Venv) -> None:
    for entry in venv.site.glob("setuptools*"):
        entry.unlink()
    code = "from glmpatch.building.preflight import *; print(*problems_of_tools(None))"
    assert "setuptools is not installed" in venv.run("-c", code).out


def test_a_folder_for_the_wheel_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (problem,) = problems_of_folders(tmp_path / "file/dist/of/wheels")
    assert problem.what.startswith(f"{tmp_path / 'file'} ")
    assert list(problems_of_folders(tmp_path / "dist/of/wheels")) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_scratch_folder_where_no_program_runs(tmp_path: Path) -> None:
    code = "from glmpatch.building.preflight import *; print(*problems_of_folders(None))"
    mounted = 'mount -t tmpfs -o noexec none "$0" && TMPDIR=$0 exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(tmp_path), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert f"{tmp_path} is mounted so that no program in it runs" in done.stdout
    assert "TMPDIR" in done.stdout


def test_an_mpi_that_can_be_installed_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "other_mpis", lambda _flavour: iter(()))
    assert list(problems_of_mpi(FLAVOURS["intel"], NOTHING, None, [])) == []


def test_an_mpi_that_can_neither_be_found_nor_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Problem("another MPI", "take it away")
    monkeypatch.setattr(preflight, "other_mpis", lambda _flavour: iter([other]))
    nothing = Search(None, ("/usr has no mpi.h",))
    first, second = problems_of_mpi(FLAVOURS["mpich"], nothing, None, [])
    assert "/usr has no mpi.h" in first.what
    assert "mpich==" in first.what
    assert second == other
    monkeypatch.setattr(preflight, "other_mpis", lambda _flavour: iter(()))
    assert list(problems_of_mpi(FLAVOURS["mpich"], nothing, None, [Problem("no pip", "get it")])) == [first]


def test_an_mpi_that_is_named_is_not_replaced(tmp_path: Path) -> None:
    search = FLAVOURS["mpich"].search(tmp_path)
    (problem,) = problems_of_mpi(FLAVOURS["mpich"], search, tmp_path, [])
    assert problem.what == f"{tmp_path} has no bin/mpirun"
    assert "--mpi-root" in problem.mend


def test_all_is_told_at_once_each_with_its_mend(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_like(path, "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentLacksError) as caught:
        build_backend(BackendOptions("mpich", mpi_root=path, wheel_dir=path / "dist"), lambda _event: None)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    problems = [line for line in caught.value.message.splitlines() if line.startswith("  - ")]
    mends = [line for line in caught.value.message.splitlines() if line.startswith("    mend: ")]
    assert len(problems) == len(mends) == 3
    for part in ("torch 2.4.1+cpu", "no-such-compiler", f"{path} has no bin/mpirun"):
        assert part in "".join(problems)
    assert not (path / "dist").exists()
