"""The plan as a shell script: it does what the command does, and nothing that stands in an option."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from glmpatch.building.torch.plan import STEPS
from tests.building.torch.conftest import Build, Workshop, check_built, make_prefix, wait_for
from tests.building.torch.standin_support import make_repository
from tests.git_support import make_folder, snapshot
from tests.mpi_support import ROOTS

_MPI_FILE = "torch/csrc/distributed/c10d/ProcessGroupMPI.cpp"


@pytest.fixture
def script(workshop: Workshop, build: Build, tmp_path: Path) -> Path:
    """The script of what the workshop builds."""
    file = tmp_path / "build.sh"
    assert build("--set", workshop.option, "--dry-run", "--script", file).code == 0
    return file


def _start(script: Path, work: Path, prefix: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [script],
        env={**os.environ, "WORK": str(work), "PREFIX": str(prefix), **more},
        cwd=script.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _run(script: Path, work: Path, prefix: Path, **more: str) -> tuple[int, str]:
    with _start(script, work, prefix, **more) as process:
        said, _ = process.communicate(timeout=300)
    return process.returncode, said


def _borrow(workshop: Workshop, script: Path, work: Path, prefix: Path) -> None:
    """A folder of the script with the environment of the build, which takes long to make."""
    (digest,) = re.findall(r'local this="(\w+) for', script.read_text(encoding="utf-8"))
    make_folder(work, {"state/script": f"{digest} for {prefix}\n".encode()})
    (work / "env").symlink_to(workshop.work / "env")


def _check_shell(script: Path) -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def _commands(work: Path, prefix: Path) -> dict[str, list[list[str]]]:
    """The commands of each step, as its log tells them, with names in the place of the two folders."""
    found = {}
    for step in STEPS[1:]:
        lines = (work / f"logs/{step}.log").read_text(encoding="utf-8").splitlines()
        commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]
        found[step] = [
            [word.replace(str(work), "WORK").replace(str(prefix), "PREFIX") for word in command] for command in commands
        ]
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of the wheel."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_does_what_the_command_does(workshop: Workshop, build: Build, script: Path, tmp_path: Path) -> None:
    check_built(workshop, build("--set", workshop.option, "--json"), "mpich", ROOTS / "mpich")
    work, prefix = tmp_path / "another's 工作 folder", make_prefix(tmp_path / "prefix")
    _borrow(workshop, script, work, prefix)
    _check_shell(script)

    sign = work / "source/build/slow.started"
    with _start(script, work, prefix, STANDIN_SLOW="60") as process:
        wait_for(lambda: sign.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.wait()
        code, said = _run(script, work, prefix)
        assert code == 3
        assert "what is left of a killed one" in said
        os.killpg(process.pid, signal.SIGKILL)
    kernels = {file: file.stat().st_mtime_ns for file in work.glob("source/build/**/kernel_*.o")}
    assert len(kernels) == 10

    code, said = _run(script, work, prefix)
    assert code == 0, said
    begun = [line.partition(":")[0] for line in said.splitlines() if line.startswith("* ")]
    assert begun == [f"* {step}" for step in STEPS[1:]]
    assert said.count("done already") == STEPS[1:].index("build")
    assert {file: file.stat().st_mtime_ns for file in kernels} == kernels

    ours, theirs = _commands(work, prefix), _commands(workshop.work, workshop.prefix)
    assert theirs.pop("patch") == []
    ((program, *_),) = ours.pop("patch")
    assert program == "git"
    assert ours == theirs
    assert (work / "source" / _MPI_FILE).read_bytes() == (workshop.work / "source" / _MPI_FILE).read_bytes()
    assert _contents(work / "dist") == _contents(workshop.work / "dist")
    assert not (workshop.root / "carried-out").exists()

    code, said = _run(script, work, prefix)
    assert code == 0
    assert said.count("done already") == len(STEPS) - 1
    code, said = _run(script, work, tmp_path / "another")
    assert code == 3
    assert "another PREFIX" in said

    (installed,) = prefix.glob("lib/python*/site-packages/torch-*.dist-info")
    # As when another torch is installed over it.
    shutil.rmtree(installed)
    code, said = _run(script, work, prefix)
    assert code == 0, said
    begun = [line for line in said.splitlines() if line.startswith("* ")]
    assert [line for line in begun if not line.endswith("done already")] == [
        f"* install: install torch 2.13.0+mpi.mpich into {workshop.prefix}",
        "* verify: prove it with 2 ranks",
    ]


def test_tells_all_that_is_missing_and_carries_nothing_out(build: Build, tmp_path: Path) -> None:
    """That of a tree, in folders whose names a shell would carry out."""
    touch = f"touch {shlex.quote(str(tmp_path / 'carried-out'))}"
    work, prefix = (tmp_path / f"{name} ' \" $({touch}) `{touch}` 工" for name in ("work", "prefix"))
    tree, script = make_repository(tmp_path).path, tmp_path / "build it.sh"
    stranger = tmp_path / "stranger"
    make_folder(stranger, {"source/.git/HEAD": b"ref: refs/heads/mine\n"})
    before = snapshot(tmp_path)
    written = build(
        *("--source", tree, "--work-dir", work, "--prefix", prefix, "--set", f"A=$({touch})"),
        *("--dry-run", "--script", script),
    )
    assert written.code == 0, written.out
    _check_shell(script)
    text = script.read_text(encoding="utf-8")
    assert " fetch " not in text
    assert f"cp -a {tree}/." in text
    code, said = _run(script, stranger, prefix)
    assert code == 3
    assert said == f"error: {stranger} is not empty, and no folder of this script: name another WORK\n"
    # A machine with what a shell script needs and nothing to build with.
    (tmp_path / "bin").mkdir()
    for name in ("awk", "bash", "df", "dirname", "env", "realpath"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    ran = subprocess.run(
        [script],
        env={"PATH": str(tmp_path / "bin"), "JOBS": "100000", "PYTHON": "no-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 3, ran.stderr
    for missing in ("no-python", "c++", "flock", "tar", "git"):
        assert f"  - {missing} is not installed\n" in ran.stderr
    assert "set JOBS to fewer" in ran.stderr
    shutil.rmtree(tmp_path / "bin")
    script.unlink()
    assert snapshot(tmp_path) == before


def test_a_step_that_fails(workshop: Workshop, build: Build, tmp_path: Path) -> None:
    """With folders that are no whole paths, and in the place of the environment of glmpatch itself."""
    tree, script = make_repository(tmp_path).path, tmp_path / "build.sh"
    assert build("--source", tree, "--prefix", sys.prefix, "--dry-run", "--script", script).code == 0
    (tree / "version.txt").write_text("2.6.0\n")
    prefix = make_prefix(tmp_path / "prefix")
    if ROOTS.is_relative_to(sys.prefix):
        # What is in that environment is looked for in this one.
        (prefix / ROOTS.relative_to(sys.prefix)).symlink_to(ROOTS)
    _borrow(workshop, script, tmp_path / "work", prefix)
    code, said = _run(script, Path("work"), Path("prefix"))
    assert code == 4
    assert f"{tmp_path}/work/source is the source of torch 2.6.0, not of 2.13.0" in said
    assert f"error: the step source failed: see {tmp_path}/work/logs/source.log" in said
    assert f"$ {prefix}/bin/{Path(sys.executable).name} {tmp_path}/work/files/torch_tool.py source" in said

    (tree / "version.txt").write_text("2.13.0\n")
    code, said = _run(script, Path("work"), Path("prefix"), CXX="false")
    assert code == 4
    assert said.count("done already") == STEPS[1:].index("source")
    assert "error: the step configure failed" in said
