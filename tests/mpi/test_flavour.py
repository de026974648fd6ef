from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from glmpatch.mpi import FLAVOURS, FlavourId, intel
from tests.mpi_support import ALL_FLAVOURS, ROOTS, installation

PAIRS = [(one, other) for one in ALL_FLAVOURS for other in ALL_FLAVOURS if one != other]
SAYS_WHICH = """
#include <mpi.h>
#include <cstdio>
int main() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, ranks = 0;
    MPI_Get_library_version(text, &length);
    MPI_Init(nullptr, nullptr);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    std::printf("one of %d: %s\\n", ranks, text);
    MPI_Finalize();
}
"""
# What schedulers tell the jobs that they start. The file `hosts` is made for each.
SCHEDULERS: Mapping[str, Mapping[str, str]] = {
    "Slurm": {
        "SLURM_JOBID": "1",
        "SLURM_JOB_ID": "1",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "nowhere",
        "SLURM_NODELIST": "nowhere",
        "SLURM_TASKS_PER_NODE": "1(x2)",
    },
    "PBS": {"PBS_JOBID": "1", "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_NODEFILE": "hosts"},
    "LSF": {
        "LSB_JOBID": "1",
        "LSB_MCPU_HOSTS": "nowhere 2",
        "LSB_HOSTS": "nowhere nowhere",
        "LSB_DJOB_HOSTFILE": "hosts",
    },
    "Grid Engine": {"PE_HOSTFILE": "hosts", "NSLOTS": "2", "SGE_ROOT": "/nowhere", "ARC": "lx"},
    "the user": {
        "HYDRA_HOST_FILE": "hosts",
        "HYDRA_LAUNCHER": "slurm",
        "HYDRA_BOOTSTRAP": "slurm",
        "I_MPI_HYDRA_HOST_FILE": "hosts",
        "I_MPI_HYDRA_BOOTSTRAP": "slurm",
        "PRTE_MCA_prte_default_hostfile": "hosts",
        "OMPI_MCA_orte_default_hostfile": "hosts",
    },
}
SAYS = {"intel": "Intel(R) MPI Library 1.2", "openmpi": "mpirun (Open MPI) 1.2", "mpich": "HYDRA build details:"}


@pytest.fixture(autouse=True)
def _no_other_mpi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test names is there."""
    monkeypatch.delenv("I_MPI_ROOT", raising=False)
    monkeypatch.setattr(intel, "_ONEAPI", tmp_path / "oneapi")
    monkeypatch.setattr("glmpatch.mpi.flavour._SYSTEM", tmp_path / "usr")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Mapping[FlavourId, Path]:
    """A program for each MPI, compiled with nothing but the flags that were found."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cpp").write_text(SAYS_WHICH)
    for flavour in ALL_FLAVOURS:
        mpi = installation(flavour)
        command = ["c++", *mpi.compile_flags, str(folder / "main.cpp"), *mpi.link_flags, "-o", str(folder / flavour)]
        subprocess.run(command, check=True)
    return {flavour: folder / flavour for flavour in ALL_FLAVOURS}


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def passing_on(file: Path, target: Path) -> None:
    """A program that becomes another."""
    script(file, f'exec {shlex.quote(str(target))} "$@"')


def refusal(flavour: FlavourId, root: Path) -> str:
    """Why the MPI in `root` will not do."""
    search = FLAVOURS[flavour].search(root)
    assert search.installation is None
    (reason,) = search.passed_over
    assert reason.startswith(f"{root} ")
    return reason


def run(command: list[str], environment: Mapping[str, str]) -> list[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_the_version_is_that_of_the_package(flavour: FlavourId) -> None:
    mpi = installation(flavour)
    package = {"intel": "impi_devel"}.get(flavour, flavour)
    assert list(mpi.root.glob(f"lib/python*/site-packages/{package}-{mpi.version}.dist-info"))
    assert mpi.library.startswith(mpi.identity)
    assert mpi.identity.endswith(mpi.version)


@pytest.mark.parametrize(("flavour", "other"), PAIRS)
def test_none_takes_another_for_its_own(flavour: FlavourId, other: FlavourId) -> None:
    root = installation(other).root
    assert f"an mpirun that is not {FLAVOURS[flavour].title}'s" in refusal(flavour, root)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_more_ranks_than_cores(flavour: FlavourId, program: Mapping[FlavourId, Path]) -> None:
    mpi = installation(flavour)
    ranks = len(os.sched_getaffinity(0)) + 1
    lines = run(mpi.launch(ranks, [str(program[flavour])]), mpi.environment(os.environ))
    assert sum(line.startswith(f"one of {ranks}: ") for line in lines) == ranks


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_ranks_start_on_this_host_whatever_a_scheduler_says(flavour: FlavourId, scheduler: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("nowhere 2 queue\n" if scheduler == "Grid Engine" else "nowhere\nnowhere\n")
    told = {name: str(hosts) if value == "hosts" else value for name, value in SCHEDULERS[scheduler].items()}
    mpi = installation(flavour)
    environment = mpi.environment({**os.environ, **told, "MPIEXEC_TIMEOUT": "20"})
    assert run(mpi.launch(2, ["echo", "here"]), environment) == ["here", "here"]


def test_what_steers_an_mpi_itself_is_kept() -> None:
    own = {"PMIX_MCA_gds": "hash", "OMPI_MCA_btl": "self,tcp", "I_MPI_FABRICS": "shm", "HYDRA_TOPO_DEBUG": "1"}
    assert own.items() <= installation("openmpi").environment(own).items()


@pytest.mark.parametrize(("flavour", "other"), PAIRS)
def test_a_program_keeps_its_mpi_where_another_is_in_the_way(
    flavour: FlavourId, other: FlavourId, program: Mapping[FlavourId, Path]
) -> None:
    """Intel's library and MPICH's have the same soname."""
    mpi = installation(flavour)
    environment = mpi.environment({**os.environ, "LD_LIBRARY_PATH": str(ROOTS / other / "lib")})
    lines = run(mpi.launch(1, [str(program[flavour])]), environment)
    assert mpi.identity in " ".join(lines).replace("      ", " ")


def test_a_program_keeps_its_mpi_without_our_help(program: Mapping[FlavourId, Path]) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(installation("mpich").root / "lib")}
    assert installation("intel").identity in " ".join(run([str(program["intel"])], environment))


def test_intel_mpi_runs_over_libfabric(program: Mapping[FlavourId, Path]) -> None:
    mpi = installation("intel")
    environment = mpi.environment({**os.environ, "I_MPI_FABRICS": "ofi", "FI_PROVIDER": "tcp"})
    lines = run(mpi.launch(2, [str(program["intel"])]), environment)
    assert sum(line.startswith("one of 2: ") for line in lines) == 2


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_it_is_found_in_the_environment_of_this_python(flavour: FlavourId, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert FLAVOURS[flavour].search().installation is None
    monkeypatch.setattr(sys, "prefix", str(installation(flavour).root))
    found = FLAVOURS[flavour].search().installation
    assert found
    assert found.root == installation(flavour).root


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_it_is_found_on_path_behind_all_others(flavour: FlavourId, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [other for other in ALL_FLAVOURS if other != flavour]
    folders = [str(installation(name).root / "bin") for name in (*others, flavour)]
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, "/usr/bin", "/bin"]))
    search = FLAVOURS[flavour].search()
    assert search.installation
    assert search.installation.root.resolve() == installation(flavour).root.resolve()
    assert len(search.passed_over) == len(others)


def test_intel_mpi_is_first_looked_for_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    root = installation("intel").root
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("I_MPI_ROOT", str(root))
    monkeypatch.setattr(sys, "prefix", str(installation("mpich").root))
    search = FLAVOURS["intel"].search()
    assert search.installation
    assert (search.installation.root, search.passed_over) == (root, ())


def test_a_variable_that_leads_astray_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("I_MPI_ROOT", str(installation("mpich").root))
    monkeypatch.setattr(sys, "prefix", str(installation("intel").root))
    search = FLAVOURS["intel"].search()
    assert search.installation
    assert search.installation.root == installation("intel").root
    assert "HYDRA" in search.passed_over[0]


def test_debian_tells_the_mpis_of_one_folder_apart_by_their_names(tmp_path: Path) -> None:
    """`mpirun` may be either's; `mpirun.mpich` is MPICH's."""
    for program in ("mpirun", "mpicxx"):
        passing_on(tmp_path / "usr/bin" / program, installation("openmpi").root / "bin" / program)
        passing_on(tmp_path / "usr/bin" / f"{program}.mpich", installation("mpich").root / "bin" / program)
    mpich = FLAVOURS["mpich"].search(tmp_path / "usr").installation
    openmpi = FLAVOURS["openmpi"].search(tmp_path / "usr").installation
    assert mpich
    assert openmpi
    assert (mpich.version, mpich.launcher.name) == (installation("mpich").version, "mpirun.mpich")
    assert (openmpi.version, openmpi.launcher.name) == (installation("openmpi").version, "mpirun")


def test_an_empty_folder_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert refusal("mpich", tmp_path).endswith("has no bin/mpirun")
    assert refusal("mpich", tmp_path / "nowhere").endswith("has no bin/mpirun")


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_what_only_runs_programs_will_not_do(flavour: FlavourId, tmp_path: Path) -> None:
    script(tmp_path / "bin/mpirun", f"echo '{SAYS[flavour]}'")
    assert "lacks bin/mpicxx" in refusal(flavour, tmp_path)
    script(tmp_path / "bin/mpicxx", "echo c++ -lmpi")
    assert "lacks mpi.h" in refusal(flavour, tmp_path)
    (tmp_path / "include").mkdir()
    (tmp_path / "include/mpi.h").touch()
    assert "lacks the library libmpi.so" in refusal(flavour, tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libmpi.so").write_text("no library")
    assert "is broken: " in refusal(flavour, tmp_path)


def test_what_programs_say_when_they_break_is_told(tmp_path: Path) -> None:
    script(tmp_path / "bin/mpirun", "echo; echo libhwloc.so.15: no such file; exit 127")
    assert refusal("openmpi", tmp_path).endswith("says: libhwloc.so.15: no such file")
    (tmp_path / "bin/mpirun").write_bytes(b"\x7fELF of another machine")
    assert "does not start" in refusal("openmpi", tmp_path)


def test_a_wrapper_that_talks_nonsense(tmp_path: Path) -> None:
    script(tmp_path / "bin/mpirun", f"echo '{SAYS['mpich']}'")
    script(tmp_path / "bin/mpicxx", "echo 'c++ -I\"/never closed'")
    assert "has an mpicxx that says" in refusal("mpich", tmp_path)


def test_a_library_that_is_not_that_of_its_launcher(tmp_path: Path) -> None:
    """What is left when one MPI is installed over another."""
    mpich = installation("mpich")
    script(tmp_path / "bin/mpirun", f"echo '{SAYS['intel']}'")
    passing_on(tmp_path / "bin/mpicxx", mpich.root / "bin/mpicxx")
    assert "has a library that is not Intel MPI's: MPICH Version" in refusal("intel", tmp_path)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_what_the_loader_complains_about_is_no_part_of_an_answer(
    flavour: FlavourId, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpi = installation(flavour)
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/libpreloaded.so")
    assert FLAVOURS[flavour].search(mpi.root).installation == mpi


@pytest.mark.parametrize(("user", "asked"), [(0, {"1"}), (1000, {None})])
def test_only_root_insists_on_running_as_root(user: int, asked: set[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    environment = FLAVOURS["openmpi"].environment(Path("/mpi"), {"PATH": "/bin"})
    names = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    assert {environment.get(name) for name in names} == asked
    assert environment["PATH"] == "/mpi/bin:/bin"


def test_the_layout_of_oneapi(tmp_path: Path) -> None:
    """libfabric lies apart, and its providers below it."""
    fabric = tmp_path / "opt/mpi/libfabric/lib"
    (fabric / "prov").mkdir(parents=True)
    (fabric / "libfabric.so.1").touch()
    environment = FLAVOURS["intel"].environment(tmp_path, {"LD_LIBRARY_PATH": "/own"})
    assert environment["I_MPI_ROOT"] == str(tmp_path)
    assert environment["LD_LIBRARY_PATH"] == f"{fabric}:{tmp_path / 'lib'}:/own"
    assert environment["FI_PROVIDER_PATH"] == str(fabric / "prov")


def test_each_is_called_what_it_says() -> None:
    assert {name: flavour.id for name, flavour in FLAVOURS.items()} == {name: name for name in ALL_FLAVOURS}
