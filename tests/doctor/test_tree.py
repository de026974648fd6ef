from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch.assets import asset_folder
from glmpatch.cli import run
from glmpatch.doctor.row import Row, State
from glmpatch.doctor.tree import PatchedTree, apply_command, launch_script, patched, read_tree
from glmpatch.errors import UsageError
from glmpatch.launching.plan import LaunchPlan, Mpi
from glmpatch.launching.script import render_script
from glmpatch.machine.placement import place
from glmpatch.machine.topology import Topology
from glmpatch.mpi import FLAVOURS
from glmpatch.patching.apply import apply
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.series import load_series
from tests.doctor.support import is_fine
from tests.git_support import snapshot
from tests.machine.machines import allow, machine, max9462


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of upstream, as it is."""
    return shutil.copytree(asset_folder("templates") / "demo" / "upstream", tmp_path / "my tree")


def patch(folder: Path, backend: Backend = "mpi", dtype: Dtype = "bf16") -> None:
    apply(folder, load_series(Options(backend, dtype)))


def type_it(mend: str) -> None:
    for command in mend.split(" && "):
        name, *arguments = shlex.split(command)
        assert name == "glmpatch"
        assert run(arguments) == 0


def test_no_tree(tmp_path: Path) -> None:
    row = patched(read_tree(tmp_path / "none"), "fp32")
    assert row.state is State.FAIL
    assert row.mend == f"glmpatch apply {tmp_path}/none --dtype fp32"


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not ChatGLM-6B"):
        read_tree(tmp_path)


def test_a_tree_that_is_not_patched(folder: Path) -> None:
    before = snapshot(folder)
    row = patched(read_tree(folder), "fp32")
    assert snapshot(folder) == before, "it was only looked at"
    assert row.state is State.FAIL
    assert "to apply: requirements, process-group" in row.evidence
    type_it(row.mend)
    tree = read_tree(folder)
    assert is_fine(patched(tree, "fp32"))
    assert tree.options == Options("mpi", "fp32")
    # The other way round, as where bf16 turns out to be faster.
    type_it(apply_command(tree, "bf16"))
    assert read_tree(folder).options == Options("mpi", "bf16")


def test_a_tree_for_gloo(folder: Path) -> None:
    patch(folder, "gloo", "fp32")
    tree = read_tree(folder)
    assert tree.done
    assert tree.options == Options("gloo", "fp32")
    assert is_fine(launch_script(tree, machine()))
    assert "--backend gloo --dtype bf16" in apply_command(tree, "bf16")


def test_a_tree_that_is_patched_in_part(folder: Path) -> None:
    apply(folder, load_series(Options(dtype="fp32")).select(only=["precision", "train-flags"]))
    row = patched(read_tree(folder), "bf16")
    assert row.mend.endswith("--dtype fp32")
    type_it(row.mend)
    assert read_tree(folder).done


def test_a_conflict(folder: Path) -> None:
    (folder / "ptuning/main.py").write_text("def main(:\n")
    row = patched(read_tree(folder), "bf16")
    assert row.state is State.FAIL
    assert "ptuning/main.py:1: expected" in row.evidence
    assert "glmpatch status" in row.mend


def write_script(folder: Path, topology: Topology, root: Path | None = None) -> Path:
    file = folder / "ptuning" / "launch_cpu.sh"
    script = render_script(LaunchPlan(Mpi(FLAVOURS["intel"], None), topology, place(topology)))
    if root:
        script = script.replace(
            b"MPI_ROOT=${GLMPATCH_MPI_ROOT:-}", f"MPI_ROOT=${{GLMPATCH_MPI_ROOT:-'{root}'}}".encode()
        )
        assert str(root).encode() in script
    file.write_bytes(script)
    return file


def test_a_launch_script_for_this_machine(folder: Path) -> None:
    write_script(folder, max9462())
    row = launch_script(PatchedTree(folder, Options(), None), max9462())
    assert is_fine(row)
    assert row.evidence.endswith("is for this machine: 8 ranks")


def test_a_launch_script_for_another_machine(folder: Path) -> None:
    def judge(topology: Topology) -> Row:
        return launch_script(PatchedTree(folder, Options(), None), topology)

    file = write_script(folder, max9462())
    row = judge(allow(max9462(), range(8, 64)))
    assert row.state is State.FAIL
    assert "0-7" in row.evidence
    assert row.mend == f"glmpatch launch -o '{file}'"
    assert judge(machine(packages=2, snc=2, cores=16)).state is State.WARN
    write_script(folder, max9462(), folder / "gone")
    row = judge(max9462())
    assert row.state is State.WARN
    assert f"an MPI in {folder}/gone" in row.evidence
    # It was changed by hand just now.
    assert row.mend == f"glmpatch launch --force -o '{file}'"


def test_no_launch_script_or_one_of_the_users(folder: Path) -> None:
    tree = PatchedTree(folder, Options(), None)
    assert launch_script(tree, machine()).state is State.WARN
    tree.script.write_text("mpirun -n 2 bash train.sh\nCPUS='\n")
    assert "unknown" in launch_script(tree, machine()).evidence
    for text in ("CPUS=(x-y)\nNUMA_NODES=(')\n", "CPUS=(0-9999999999)\n", f"CPUS=({'0-9999 ' * 9000})\n"):
        tree.script.write_text(text)
        assert "unknown" in launch_script(tree, machine()).evidence


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
def test_a_launch_script_that_has_no_end(folder: Path, make: Callable[[Path], None]) -> None:
    tree = PatchedTree(folder, Options(), None)
    make(tree.script)
    assert launch_script(tree, machine()).evidence == f"there is no {tree.script}"
