from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from glmpatch.building import prove as module
from glmpatch.building.prove import Proof, prove
from glmpatch.building.record import BackendInfo, backend_in_wheel
from glmpatch.building.toolchain import Compiler, find_compiler
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
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the unpacked backend."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return shutil.copytree(backend_folder("intel"), tmp_path / "site")


def run(site: Path, appended: str = "") -> Proof:
    """The proof of the backend with some more lines in its Python."""
    with (site / "glmpatch_mpi/__init__.py").open("a") as file:
        file.write(appended)
    wheel = Path(shutil.make_archive(str(site.parent / "wheel"), "zip", site))
    info, compiler = backend_in_wheel(wheel), find_compiler()
    assert isinstance(info, BackendInfo)
    assert isinstance(compiler, Compiler)
    return prove(wheel, info, installation("intel"), compiler, site.parent / "unpacked")


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


def test_wrong_sums_are_seen(site: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"all_reduce of 1 numbers of torch\.float32 gave wrong sums") as caught:
        run(site, SILENT_ALL_REDUCE)
    (log,) = site.parent.glob("glmpatch-build-*.log")
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
