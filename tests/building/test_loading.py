"""What the wheel does when torch is imported and when the first group is made, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.toolchain import sources
from tests.mpi_support import backend_folder, installation

pytestmark = pytest.mark.usefixtures("_with_torch")

NONE: Mapping[str, str] = {}
AUTOLOAD_OFF = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
FIRST_GROUP = "import torch.distributed as d; d.init_process_group('mpi'); d.destroy_process_group()"
LOADED = """
import json, sys, torch
maps = open("/proc/self/maps").read()
print(json.dumps([sorted(sys.modules), "libmpi" in maps or "glmpatch_mpi" in maps]))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the unpacked backend."""
    return shutil.copytree(backend_folder("intel"), tmp_path / "site")


def python(
    site: Path | None, code: str, env: Mapping[str, str] = NONE, *, ranks: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run code where `site` is installed; as a rank, if its MPI must start."""
    mpi = installation("intel")
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    environment |= {"PYTHONPATH": str(site or ""), **env}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        mpi.launch(1, command) if ranks else command,
        env=mpi.environment(environment) if ranks else environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def output(site: Path | None, code: str, env: Mapping[str, str] = NONE, *, ranks: bool = False) -> str:
    """What code prints that ends well and has nothing to complain about."""
    done = python(site, code, env, ranks=ranks)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


def error(site: Path, env: Mapping[str, str] = NONE) -> str:
    """The message of the one error that the first group ends with."""
    done = python(site, FIRST_GROUP, env)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: the MPI backend ")
    return last


def change(site: Path, **values: str) -> None:
    """Change what the backend was built for."""
    file = site / "glmpatch_mpi/build.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def module(folder: Path) -> Any:
    """The package in a folder, without a torch to serve."""
    spec = spec_from_file_location("glmpatch_mpi_alone", folder / "__init__.py")
    assert spec
    assert spec.loader
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_importing_torch_loads_one_module_more_and_no_mpi(site: Path) -> None:
    without, _ = json.loads(output(None, LOADED))
    with_it, mapped = json.loads(output(site, LOADED))
    # This environment may have one installed, as `make demo` does.
    assert set(with_it) - set(without) | {"glmpatch_mpi"} & set(without) == {"glmpatch_mpi"}
    assert not mapped


def test_torch_has_mpi_with_no_other_line_of_code(site: Path) -> None:
    code = """
import torch, torch.distributed as d
from torch.distributed.distributed_c10d import *
print(d.is_mpi_available(), d.ProcessGroupMPI is ProcessGroupMPI is torch._C._distributed_c10d.ProcessGroupMPI)
"""
    off = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # this environment may have one installed, as `make demo` does
    assert output(None, "import torch.distributed as d; print(d.is_mpi_available())", off) == "False"
    assert output(site, code) == "True True"


def test_where_autoloading_is_off_it_can_be_asked_for(site: Path) -> None:
    code = """
import torch.distributed as d
print(d.is_mpi_available())
import glmpatch_mpi
print(glmpatch_mpi.register(), glmpatch_mpi.register(), d.is_mpi_available())
"""
    assert output(site, code, AUTOLOAD_OFF).split() == ["False", "True", "True", "True"]


def test_it_can_be_imported_first(site: Path) -> None:
    code = "import glmpatch_mpi as g; print(g.register()); import torch.distributed as d; print(d.is_mpi_available())"
    assert output(site, code).split() == ["True", "True"]


def test_a_torch_with_its_own_is_left_alone(site: Path) -> None:
    code = """
import logging
import torch.distributed as d, torch
class ProcessGroupMPI: __module__ = "torch._C._distributed_c10d"
torch._C._distributed_c10d.ProcessGroupMPI = ProcessGroupMPI
logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", handlers=[h := logging.StreamHandler()])
import glmpatch_mpi, sys
h.setStream(sys.stdout)
print(glmpatch_mpi.register())
print(torch._C._distributed_c10d.ProcessGroupMPI is ProcessGroupMPI, hasattr(d, "ProcessGroupMPI"))
"""
    assert output(site, code, AUTOLOAD_OFF).splitlines() == [
        "glmpatch_mpi: this PyTorch was built with MPI: its own backend is left alone",
        "False",
        "True False",
    ]


def test_the_first_group_brings_the_real_class(site: Path) -> None:
    code = """
import torch, torch.distributed as d, torch.distributed.distributed_c10d as api
stand_in = d.ProcessGroupMPI
d.init_process_group("mpi")
backend = d.group.WORLD._get_backend(torch.device("cpu"))
places = (d.ProcessGroupMPI, api.ProcessGroupMPI, torch._C._distributed_c10d.ProcessGroupMPI)
assert all(place is type(backend) for place in places), places
assert type(backend) is not stand_in
assert isinstance(stand_in.create([0]), type(backend))  # whoever kept it
d.destroy_process_group()
print("done")
"""
    assert output(site, code, ranks=True) == "done"


def test_each_group_gets_its_timeout(site: Path) -> None:
    code = """
import torch.distributed as d
from datetime import timedelta
import glmpatch_mpi._C as library
create, seen = library.ProcessGroupMPI.create, []
library.ProcessGroupMPI.create = staticmethod(lambda ranks, timeout: (seen.append(timeout), create(ranks, timeout))[1])
d.init_process_group("mpi", timeout=timedelta(seconds=77))
d.new_group([0], timeout=timedelta(seconds=88))
d.new_group([0])
d.ProcessGroupMPI.create([0])
print(*(timeout.total_seconds() for timeout in seen))
d.destroy_process_group()
"""
    assert output(site, code, ranks=True).split() == ["77.0", "88.0", *["1800.0"] * 2]


def test_another_torch_is_refused(site: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    change(site, torch="2.12.0")
    message = error(site)
    for part in ("torch 2.12.0", torch.__version__, "glmpatch build-backend --mpi intel"):
        assert part in message


def test_another_version_of_the_mpi_is_refused(site: Path) -> None:
    change(site, identity="Intel(R) MPI Library 2021.18", mpi_version="2021.18")
    message = error(site)
    for part in ("Intel MPI 2021.18,", installation("intel").identity, "glmpatch build-backend --mpi intel --force"):
        assert part in message


@pytest.mark.parametrize("version", ["2021.18.10", "2021.18", "2021.1", "2021.18.1rc1", "2021x18.1"])
def test_a_version_that_begins_alike_is_another(version: str) -> None:
    library = "Intel(R) MPI Library 2021.18.1 for Linux* OS"
    begins = module(sources() / "glmpatch_mpi")._begins
    assert begins(library, "Intel(R) MPI Library 2021.18.1")
    assert not begins(library, f"Intel(R) MPI Library {version}")
    assert not begins(f"Intel(R) MPI Library {version} for Linux* OS", "Intel(R) MPI Library 2021.18.1")


def test_another_mpi_is_refused(site: Path) -> None:
    """MPICH's library has the soname of Intel's, and may be there before."""
    message = error(site, {"LD_PRELOAD": str(installation("mpich").root / "lib/libmpi.so.12")})
    assert "this process has MPICH Version: " in message


def test_a_library_that_does_not_load_is_told(site: Path) -> None:
    (library,) = site.glob("glmpatch_mpi/_C.*.so")
    library.write_bytes(b"no library")
    assert "does not load" in error(site)
    library.unlink()
    message = error(site)
    for part in ("does not load", str(installation("intel").root), "glmpatch build-backend --mpi intel"):
        assert part in message


def test_a_damaged_record_is_told(site: Path) -> None:
    file = site / "glmpatch_mpi/build.json"
    file.write_text("")
    message = error(site)
    assert f"is damaged: {file}" in message
    assert "glmpatch build-backend --mpi intel|openmpi|mpich --force" in message


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"torch": 1}'])
def test_however_a_record_is_damaged(record: str | None, tmp_path: Path) -> None:
    shutil.copy(sources() / "glmpatch_mpi/__init__.py", tmp_path)
    if record is not None:
        (tmp_path / "build.json").write_text(record)
    with pytest.raises(RuntimeError, match="the MPI backend is damaged"):
        module(tmp_path)._read_build()


@pytest.mark.parametrize("damage", ["glmpatch_mpi/build.json", "glmpatch_mpi/_C.*.so"])
def test_damage_does_not_break_the_import(damage: str, site: Path) -> None:
    (file,) = site.glob(damage)
    file.write_bytes(b"")
    assert output(site, "import torch; print(torch.ones(2).sum().item())") == "2.0"


def test_a_torch_that_it_does_not_fit_is_imported_all_the_same(site: Path) -> None:
    code = """
import glmpatch_mpi
def register(): raise AttributeError("module torch has no attribute distributed")
glmpatch_mpi.register = register
import torch
print(torch.ones(2).sum().item(), torch.distributed.is_mpi_available())
"""
    done = python(site, code)
    assert (done.returncode, done.stdout) == (0, "2.0 False\n")
    assert 'backend="mpi" is not available' in done.stderr
    assert "has no attribute distributed" in done.stderr
