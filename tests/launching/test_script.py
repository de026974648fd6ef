from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import ExitCode, GlmpatchError
from glmpatch.launching.plan import LaunchPlan, Mpi
from glmpatch.launching.script import holds_ours, is_ours, render_script, write_script
from glmpatch.machine.placement import place
from glmpatch.machine.topology import Topology
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import FlavourId, Installation
from tests.machine.machines import allow, machine, max9462
from tests.mpi_support import ALL_FLAVOURS

ROOT = Path("/opt/an mpi")
MPIS: tuple[tuple[FlavourId, str | None], ...] = (
    ("intel", "2021.18.1"),
    ("openmpi", "4.1.4"),
    ("openmpi", "5.0.7"),
    ("mpich", None),
)
TOPOLOGIES = {
    "flat": max9462("flat"),
    "without hyperthreads": machine(packages=1, snc=1, cores=2, ht=False),
    "cut": allow(machine(packages=1, snc=2, cores=4), [1, 2, 3, 5, 6, 7]),
}
HOSTS: dict[str, dict[str, Any]] = {
    "host": {},
    "hostfile": {"hostfile": Path("/a/hosts"), "nodes": None},
    "slurm": {"slurm": True, "nodes": 2},
}


def mpi(flavour: FlavourId, version: str | None, root: Path = ROOT) -> Mpi:
    if version is None:
        return Mpi(FLAVOURS[flavour], None)
    return Mpi(
        FLAVOURS[flavour], Installation(FLAVOURS[flavour], root, version, "", "", root / "bin" / "mpirun", (), ())
    )


def plan_for(
    flavour: FlavourId = "intel", topology: Topology = TOPOLOGIES["flat"], version: str | None = None, **hosts: Any
) -> LaunchPlan:
    return LaunchPlan(mpi(flavour, version), topology, place(topology), **hosts)


def lines(script: bytes) -> list[str]:
    return script.decode().splitlines()


def test_every_variant_is_clean(tmp_path: Path) -> None:
    files = []
    # shellcheck takes half a second for each: a third of them, in which each two parts meet.
    for at, ((flavour, version), hosts, topology) in enumerate(product(MPIS, HOSTS, TOPOLOGIES)):
        if (at + at // 3 + at // 9) % 3 == 0 or "GLMPATCH_SWEEP" in os.environ:
            file = tmp_path / f"{flavour} {version} {topology} {hosts}.sh"
            file.write_bytes(render_script(plan_for(flavour, TOPOLOGIES[topology], version, **HOSTS[hosts])))
            files.append(file)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    for file in files:
        subprocess.run(["bash", "-n", file], check=True)
        text = file.read_text()
        assert all(len(line) <= 120 for line in text.splitlines() if not re.match(r" *(export )?[A-Z_]+=", line)), file
        assert "\n\n\n" not in text, file
        assert text.endswith('main "$@"\n')


def test_what_it_says_of_a_machine_with_flat_memory() -> None:
    said = lines(render_script(plan_for("intel", max9462("flat"), "2021.18.1")))
    for line in (
        "RANKS=8",
        "THREADS=${OMP_NUM_THREADS:-8}",
        "CPUS=(0-7 8-15 16-23 24-31 32-39 40-47 48-55 56-63)",
        "MEMORY_NODES=(8 9 10 11 12 13 14 15)",
        "MPI_ROOT=${GLMPATCH_MPI_ROOT:-'/opt/an mpi'}",
        '    export PATH="$MPI_ROOT"/bin"${PATH:+:$PATH}"',
        '    export I_MPI_ROOT="$MPI_ROOT"',
    ):
        assert said.count(line) == 1, line
    (pinning,) = (line for line in said if line.startswith("    export I_MPI_PIN_DOMAIN="))
    assert pinning == (
        "    export I_MPI_PIN_DOMAIN='[0xff,0xff00,0xff0000,0xff000000,0xff00000000,0xff0000000000,0xff000000000000,"
        "0xff00000000000000]'"
    )


def test_the_kernel_is_left_to_choose_the_memory_where_it_chooses_right() -> None:
    for mode in ("cache", "only"):
        assert b"numactl" not in render_script(plan_for(topology=max9462(mode)))


def test_a_rank_without_a_memory_node_of_its_own() -> None:
    topology = max9462("flat")
    # Of the nearest HBM of the first cluster we may not use anything.
    plan = plan_for(topology=allow(topology, topology.allowed_cpus, set(topology.allowed_nodes) - {0, 8}))
    preferred = [seat.memory_node for seat in plan.placement.seats]
    (line,) = (line for line in lines(render_script(plan)) if line.startswith("MEMORY_NODES="))
    assert line == f"MEMORY_NODES=({' '.join(repr('') if node is None else str(node) for node in preferred)})"


def test_the_head_of_a_job() -> None:
    said = lines(render_script(plan_for(slurm=True, nodes=3)))
    job = [line for line in said if line.startswith("#SBATCH")]
    assert job[:3] == ["#SBATCH --job-name=glmpatch", "#SBATCH --nodes=3", "#SBATCH --ntasks-per-node=8"]
    # Slurm reads no further than to the first command.
    assert all(line.startswith("#") for line in said[: said.index(job[-1])])


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert render_script(plan_for()) == render_script(plan_for())


def test_it_knows_its_own_work() -> None:
    script = render_script(plan_for())
    assert is_ours(script)
    for changed in (
        script + b"\n",
        script.replace(b"RANKS=8", b"RANKS=4"),
        script.replace(b"#!/usr/bin/env bash", b"#!/bin/bash"),
        script.replace(b"sha256 ", b"sha256 0"),
        script.replace(b"\n", b"\r\n"),
        b"".join(script.splitlines(keepends=True)[2:]),
        b"#!/bin/sh\n",
        b"",
    ):
        assert not is_ours(changed)


def test_it_writes_over_its_own_work_alone(tmp_path: Path) -> None:
    file = tmp_path / "a/new folder/launch_cpu.sh"
    first, second = render_script(plan_for("intel")), render_script(plan_for("mpich"))
    for script in (first, second):
        write_script(file, script)
        assert file.read_bytes() == script
        assert stat.S_IMODE(file.stat().st_mode) == 0o755
    file.write_bytes(second + b"# mine\n")
    with pytest.raises(GlmpatchError, match="is there, and not as glmpatch wrote it") as caught:
        write_script(file, first)
    assert (caught.value.exit_code, file.read_bytes()) == (ExitCode.CONFLICT, second + b"# mine\n")
    write_script(file, first, force=True)
    assert file.read_bytes() == first
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_link_is_not_its_own_work(tmp_path: Path) -> None:
    target, link = tmp_path / "target.sh", tmp_path / "link.sh"
    write_script(target, render_script(plan_for()))
    link.symlink_to(target)
    assert holds_ours(target)
    with pytest.raises(GlmpatchError):
        write_script(link, render_script(plan_for()))
    dangling = tmp_path / "dangling.sh"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(GlmpatchError):
        write_script(dangling, render_script(plan_for()))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: file.symlink_to("/dev/fd/1")])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    # As root, this would be the end of /dev/null or /dev/stdout.
    file = tmp_path / "it"
    make(file)
    before = file.lstat().st_ino
    with pytest.raises(GlmpatchError, match="is not a plain file"):
        write_script(file, render_script(plan_for()), force=True)
    assert file.lstat().st_ino == before


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GlmpatchError, match=r"cannot write .*launch_cpu\.sh: ") as caught:
        write_script(tmp_path / "file/launch_cpu.sh", b"")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


HOSTILE = "a 'b' \"c\" $(touch pwned) `touch pwned` ${HOME} \\ ; touch pwned\n# 中文 }!*"


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_no_value_of_the_user_is_executed(tmp_path: Path, flavour: FlavourId) -> None:
    topology = machine(packages=1, snc=1, cores=1, ht=False)
    root = Path("/") / HOSTILE / os.fsdecode(b"\xff")
    plan = LaunchPlan(
        mpi(flavour, "5.0", root),
        replace(topology, source=HOSTILE),
        place(topology),
        hostfile=root / "hosts",
        python_folder=root / "bin",
    )
    script = render_script(plan)
    told = (
        script.rpartition(b"\nSELF=")[0] + b'\nuse_mpi\nprintf "%s\\0" "$MACHINE" "$HOSTFILE" "$PYTHON_FOLDER" "$PATH"'
    )
    (tmp_path / "told.sh").write_bytes(told)
    out = subprocess.run(
        ["bash", "told.sh"], cwd=tmp_path, env={"PATH": "/usr/bin"}, stdout=subprocess.PIPE, check=True
    ).stdout
    raw = os.fsencode(root)
    assert out.split(b"\0") == [HOSTILE.encode(), raw + b"/hosts", raw + b"/bin", raw + b"/bin:/usr/bin", b""]
    assert [file.name for file in tmp_path.iterdir()] == ["told.sh"]
