from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from glmpatch.building.record import BackendInfo
from glmpatch.errors import ExitCode, GlmpatchError
from glmpatch.mpi.flavour import FlavourId, Installation
from glmpatch.training import launcher
from glmpatch.training.launcher import Mpirun, Torchrun, find_launcher
from tests.mpi_support import ALL_FLAVOURS, installation

BUILT = BackendInfo(
    version="0.1.0+x",
    torch="2.13.0",
    flavour="intel",
    mpi="Intel MPI",
    mpi_version="2021.18.1",
    mpi_root="/nowhere",
    identity="",
    library="",
    compiler="",
    compile_flags=(),
    link_flags=(),
    sanitized=False,
    inputs="",
)


def with_backend(monkeypatch: pytest.MonkeyPatch, info: BackendInfo | None) -> None:
    monkeypatch.setattr(launcher, "installed_backend", lambda: info)


def built_for(mpi: Installation) -> BackendInfo:
    return msgspec.structs.replace(BUILT, flavour=mpi.flavour.id, mpi_root=str(mpi.root), identity=mpi.identity)


def test_gloo_where_there_is_no_mpi_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, None)
    assert find_launcher(None) == find_launcher("gloo") == Torchrun()
    with pytest.raises(GlmpatchError, match=r"not installed.* even if torch was built with MPI") as caught:
        find_launcher("mpi")
    assert (caught.value.exit_code, caught.value.hint) == (
        ExitCode.ENVIRONMENT,
        "glmpatch build-backend --mpi intel, or choose --backend gloo",
    )
    with pytest.raises(GlmpatchError, match="does not run with the backend ccl") as refused:
        find_launcher("ccl")
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_mpi_where_there_is_a_backend(flavour: FlavourId, monkeypatch: pytest.MonkeyPatch) -> None:
    mpi = installation(flavour)
    with_backend(monkeypatch, built_for(mpi))
    found = find_launcher(None)
    assert isinstance(found, Mpirun)
    assert (found.backend, found.mpi.root) == ("mpi", mpi.root)
    assert found.title.endswith(mpi.version)
    assert find_launcher("gloo") == Torchrun()


def test_an_mpi_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, BUILT)
    monkeypatch.setattr(type(installation("intel").flavour), "roots", lambda _: iter(()))
    with pytest.raises(GlmpatchError, match=r"Intel MPI 2021\.18\.1 in /nowhere, which is gone or changed") as caught:
        find_launcher("mpi")
    assert caught.value.hint == "glmpatch build-backend --mpi intel"


def test_an_mpi_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    mpi = installation("mpich")
    with_backend(monkeypatch, msgspec.structs.replace(built_for(mpi), mpi_root="/nowhere"))
    monkeypatch.setattr(type(mpi.flavour), "roots", lambda _: iter([mpi.root]))
    assert find_launcher("mpi") == Mpirun(mpi)


@pytest.mark.parametrize("root", ["/nowhere", None])
def test_an_mpi_of_another_version(root: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is where the built one was, or elsewhere: the backend would refuse to load with it."""
    mpi = installation("mpich")
    info = msgspec.structs.replace(built_for(mpi), mpi_root=root or str(mpi.root), identity="MPICH Version: 4.0")
    with_backend(monkeypatch, info)
    monkeypatch.setattr(type(mpi.flavour), "roots", lambda _: iter([mpi.root]))
    with pytest.raises(GlmpatchError, match="gone or changed") as caught:
        find_launcher("mpi")
    assert caught.value.hint == "glmpatch build-backend --mpi mpich"


@pytest.mark.parametrize("where", ["nowhere", "last"])
def test_what_a_person_is_told_to_type_finds_this_python(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from an environment that is not active, or that is behind another Python."""
    pytest.importorskip("torch")
    own = Path(sys.executable).parent
    other = tmp_path / "bin"
    other.mkdir()
    (other / "python3").symlink_to("/bin/false")
    paths = [str(other), "/usr/bin", "/bin", *([str(own)] if where == "last" else [])]
    monkeypatch.setenv("PATH", os.pathsep.join(paths))
    (tmp_path / "train.sh").write_text("command -v python3\n")
    line = Torchrun().to_type(2, "train.sh")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(own / "python3")] * 2


def test_what_is_found_anyway_need_not_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin")
    assert Torchrun().to_type(2, "train.sh") == "torchrun --no-python --nproc-per-node 2 bash train.sh"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert Torchrun().to_type(2, "train.sh").startswith(f'env PATH={own}:"$PATH" torchrun ')
