"""The stand-in is built as PyTorch is, and what comes out does what PyTorch does, and fails where PyTorch fails."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from glmpatch.building import proof
from glmpatch.building.toolchain import AUTOLOAD
from tests.building.torch.standin_support import make_repository, make_tarball
from tests.git_support import git
from tests.mpi_support import installation

# Ends well only if every part of it is as it must be. What the ranks print may mix.
_JOB = """\
import proof, torch, torch.distributed as dist

assert torch.__version__ == "2.13.0+mpi" and dist.is_mpi_available()
try:
    proof.main()
except RuntimeError as error:
    assert str(error) == "map::at", error
else:
    raise AssertionError("the proof must fail")
rank = dist.get_rank()
for op, expected in {"SUM": 3, "PRODUCT": 2, "MAX": 2, "MIN": 1}.items():
    tensor = torch.full((1001,), rank + 1.0)
    dist.all_reduce(tensor, getattr(dist.ReduceOp, op))
    assert tensor.eq(expected).all(), op
for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64):
    tensor = torch.full((2, 3), rank, dtype=dtype)
    gathered = [torch.empty_like(tensor) for _ in range(2)]
    dist.all_gather(gathered, tensor)
    assert gathered[0].eq(0).all() and gathered[1].eq(1).all(), dtype
    dist.broadcast(tensor, 1)
    assert tensor.eq(1).all(), dtype
dist.barrier()
"""


def _setup(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `setup.py` with the programs of this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=tree,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_builds_and_fails_where_pytorch_does(tmp_path: Path) -> None:
    if find_spec("torch") is None:
        pytest.skip("needs torch")
    mpi, tree = installation("mpich"), make_repository(tmp_path).path
    variables = {
        "CMAKE_BUILD_TYPE": "Debug",
        "MAX_JOBS": "2",
        "MPI_HOME": str(mpi.root),
        "PYTORCH_BUILD_NUMBER": "1",
        "PYTORCH_BUILD_VERSION": "2.13.0+mpi",
        "USE_MPI": "ON",
    }
    configured = _setup(tree, "build", "--cmake-only", **variables)
    assert configured.returncode == 0, configured.stderr
    assert "--     USE_MPI               : ON" in configured.stdout
    assert f"MPI_mpi_LIBRARY:FILEPATH={mpi.root}/lib/libmpi.so" in (tree / "build/CMakeCache.txt").read_text()

    built = _setup(tree, "bdist_wheel", "--dist-dir", str(tmp_path / "dist"), **variables)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.startswith("torch-2.13.0+mpi-cp")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")  # noqa: S202 - made a moment ago

    (tmp_path / "job.py").write_text(_JOB)
    paths = [str(tmp_path / "site"), str(Path(proof.__file__).parent)]
    environment = {
        **mpi.environment(os.environ),
        "MPIEXEC_TIMEOUT": "60",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "STANDIN_TORCH": sysconfig.get_path("purelib"),
        AUTOLOAD: "0",
    }
    # With -S it does not see the packages of this environment, the real torch among them.
    command = mpi.launch(2, [sys.executable, "-S", str(tmp_path / "job.py")])
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert proof.MARK not in ran.stdout


def test_without_an_mpi_it_only_warns(tmp_path: Path) -> None:
    tree = make_repository(tmp_path).path
    built = _setup(tree, "build", CMAKE_DISABLE_FIND_PACKAGE_MPI="1", USE_MPI="ON")
    assert built.returncode == 0, built.stderr
    assert "CMake Warning at CMakeLists.txt" in built.stderr
    assert "--     USE_MPI               : OFF" in built.stdout
    assert "USE_MPI:BOOL=OFF" in (tree / "build/CMakeCache.txt").read_text()
    # What `is_mpi_available` goes by.
    # In a process of its own: here, it would stand in for the real library of that name.
    look = "import ctypes, sys; sys.exit(hasattr(ctypes.CDLL(sys.argv[1]), 'mpi_init'))"
    subprocess.run([sys.executable, "-c", look, str(tree / "torch/lib/libtorch_cpu.so")], check=True)


def test_refuses_a_missing_submodule(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    git(tmp_path, "clone", "--quiet", str(repository.path), "clone")
    assert git(tmp_path / "clone", "rev-parse", "HEAD") == repository.commit
    refused = _setup(tmp_path / "clone", "build")
    assert refused.returncode == 1
    assert "third_party/tiny is missing" in refused.stderr
    git(tmp_path / "clone", "-c", "protocol.file.allow=always", "submodule", "update", "--init", "--depth=1")
    assert (tmp_path / "clone/third_party/tiny/CMakeLists.txt").exists()


def test_the_tarball_is_whole(tmp_path: Path) -> None:
    with tarfile.open(make_tarball(tmp_path)) as archive:
        names = archive.getnames()
    assert {"pytorch/.gitmodules", "pytorch/setup.py", "pytorch/third_party/tiny/CMakeLists.txt"} < set(names)
    assert not [name for name in names if name.endswith("/.git")]
