from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.building import proof
from glmpatch.building import prove as module
from glmpatch.building.prove import Proof, read_proof, verify_step
from glmpatch.building.record import BackendInfo, backend_in_wheel
from glmpatch.building.state import BuildFolder
from glmpatch.building.steps import Step, run_steps
from glmpatch.building.toolchain import AUTOLOAD, Compiler, find_compiler
from glmpatch.errors import BuildFailedError
from glmpatch.mpi import FlavourId
from tests.mpi_support import ALL_FLAVOURS, backend_folder, installation

pytestmark = pytest.mark.usefixtures("_with_torch")

SILENT_ALL_REDUCE = """
import torch.distributed
def _do_nothing(tensor, *_, **__): pass
torch.distributed.all_reduce = _do_nothing
"""
HANGS = """
def _load():
    import time
    print("falls asleep", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the unpacked backend."""
    return shutil.copytree(backend_folder("intel"), tmp_path / "site")


def run(site: Path, appended: str = "") -> Proof:
    """The proof of the backend, which is built already, with some more lines in its Python."""
    with (site / "glmpatch_mpi/__init__.py").open("a") as file:
        file.write(appended)
    wheel = Path(shutil.make_archive(str(site.parent / "wheel"), "zip", site))
    info, compiler = backend_in_wheel(wheel), find_compiler()
    assert isinstance(info, BackendInfo)
    assert isinstance(compiler, Compiler)
    folder = BuildFolder(site.parent / "build")
    with folder.hold():
        folder.forget()
        step = verify_step(wheel, info, installation("intel"), compiler, folder.path / "unpacked")
        run_steps([Step("build", "build it"), step], folder, lambda _event: None)
        return read_proof(folder.log("verify"))


def test_the_proof_holds_wherever_it_is_started(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with modules of torch's names, by a Python that is told to look for none beside its script."""
    (site.parent / "checkout").mkdir()
    for module_name in ("torch", "random"):
        (site.parent / f"checkout/{module_name}.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(site.parent / "checkout")
    assert run(site) == Proof(2, ("float32", "bfloat16"))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with pytest.raises(BuildFailedError, match="gave wrong sums"):
        run(site, SILENT_ALL_REDUCE)


def test_wrong_sums_are_seen(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a module where this Python finds PyTorch, too, if that is not installed."""
    (site.parent / "only_here.py").write_text(SILENT_ALL_REDUCE)
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    with pytest.raises(BuildFailedError, match=r"all_reduce of 1 numbers of torch\.float32 gave wrong sums") as caught:
        run(site, "import only_here")
    log = site.parent / "build/logs/verify.log"
    assert "gave wrong sums" in log.read_text()
    assert caught.value.hint.endswith(str(log))


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        (("--ranks", "2"), "expected 2 ranks, and there are 1"),
        (("--ranks", "1", "--identity", "Intel(R) MPI Library 0"), "expected Intel(R) MPI Library 0, and /"),
    ],
)
def test_ranks_that_are_alone_and_another_mpi(site: Path, expected: tuple[str, ...], told: str) -> None:
    """As those that the mpirun of another MPI has started."""
    script = shutil.copy(proof.__file__, site)
    environment = {**installation("intel").environment(os.environ), AUTOLOAD: "1"}
    done = subprocess.run(
        [sys.executable, script, *expected], env=environment, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert told in done.stderr
    assert proof.MARK not in done.stdout


def test_a_proof_without_a_result_is_none(tmp_path: Path) -> None:
    log = tmp_path / "verify.log"
    log.write_text("$ mpirun\nall is well\n")
    with pytest.raises(BuildFailedError, match="without a result") as caught:
        read_proof(log)
    assert str(log) in caught.value.hint


def test_a_proof_that_hangs_is_ended(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIMIT", dict.fromkeys(module._LIMIT, "10"))
    with pytest.raises(BuildFailedError, match="falls asleep"):
        run(site, HANGS)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_every_mpi_knows_the_variable_that_ends_what_hangs(flavour: FlavourId) -> None:
    mpi = installation(flavour)
    environment = mpi.environment({**os.environ, **dict.fromkeys(module._LIMIT, "2")})
    done = subprocess.run(
        mpi.launch(2, ["sleep", "100"]), env=environment, check=False, capture_output=True, timeout=60
    )
    assert done.returncode != 0
