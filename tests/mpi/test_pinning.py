from __future__ import annotations

import subprocess

import pytest

from glmpatch.errors import UsageError
from glmpatch.machine.placement import place
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.pinning import RANKFILE, Pinning, srun_binding
from tests.machine.machines import allow, machine, max9462

SMALL = machine(packages=1, snc=2, cores=2)


def test_intel_is_given_masks() -> None:
    pinning = FLAVOURS["intel"].pinning(SMALL, place(SMALL), "2021.18.1")
    lists = ("I_MPI_PIN_PROCESSOR_LIST", "I_MPI_PIN_PROCESSOR_EXCLUDE_LIST")
    domains = {"I_MPI_PIN": "on", "I_MPI_PIN_CELL": "core", "I_MPI_PIN_DOMAIN": "[0x3,0xc]"}
    assert pinning == Pinning((), domains, without=lists)


def test_mpich_is_given_lists() -> None:
    assert FLAVOURS["mpich"].pinning(SMALL, place(SMALL), "5.0.2") == Pinning(("-bind-to", "user:0+1,2+3"))


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("4.1.4", ("--rankfile", RANKFILE, "--use-hwthread-cpus", "--oversubscribe")),
        ("5.0.11", ("--map-by", f"rankfile:file={RANKFILE}:HWTCPUS:OVERSUBSCRIBE", "--bind-to", "hwthread")),
        ("10.0.0rc1", ("--map-by", f"rankfile:file={RANKFILE}:HWTCPUS:OVERSUBSCRIBE", "--bind-to", "hwthread")),
    ],
)
def test_open_mpi_is_given_a_rankfile(version: str, options: tuple[str, ...]) -> None:
    pinning = FLAVOURS["openmpi"].pinning(SMALL, place(SMALL), version)
    # hwloc counts the two threads of a core one after the other.
    assert pinning == Pinning(options, {"HWLOC_ALLOW": "all"}, slots=("0-3", "4-7"))


def test_a_rankfile_has_a_line_each_rank() -> None:
    assert Pinning((), slots=("0-3", "4-7")).rankfile() == "rank 0=localhost slot=0-3\nrank 1=localhost slot=4-7\n"


def test_the_path_of_the_rankfile_is_put_in() -> None:
    pinning = Pinning(("--map-by", f"rankfile:file={RANKFILE}:HWTCPUS", RANKFILE, "a b"))
    assert pinning.words("x y") == ["--map-by", "rankfile:file=x y:HWTCPUS", "x y", "a b"]
    path = '"$1"'
    script = f'printf "%s\\n" {" ".join(pinning.shell_words(path))}'
    done = subprocess.run(["bash", "-c", script, "-", "x $(y)"], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["--map-by", "rankfile:file=x $(y):HWTCPUS", "x $(y)", "a b"]


def test_open_mpi_is_given_our_own_hardware_threads_alone() -> None:
    topology = allow(SMALL, [4, 5, 2, 6, 3])
    assert FLAVOURS["openmpi"].pinning(topology, place(topology), "5.0").slots == ("1,3", "4-6")


@pytest.mark.parametrize(("version", "cores"), [("4.1.4", 16), ("5.0.11", 32)])
def test_open_mpi_is_given_whole_cores_where_the_list_would_be_too_long(version: str, cores: int) -> None:
    whole = machine(packages=2, snc=1, cores=cores)
    topology = allow(whole, range(2 * cores))
    slots = FLAVOURS["openmpi"].pinning(topology, place(topology), version).slots
    assert slots == (f"0-{2 * cores - 1}", f"{2 * cores}-{4 * cores - 1}")


@pytest.mark.parametrize(("version", "most"), [("4.1.4", 32), ("5.0.11", 63)])
def test_what_open_mpi_would_cut_off_is_refused(version: str, most: int) -> None:
    topology = machine(packages=1, snc=1, cores=120, ht=False)
    topology = allow(topology, range(0, 120, 2))
    with pytest.raises(UsageError, match=rf"takes {most} characters for the CPUs of rank 0, too few for 0,2,4,.*,118$"):
        FLAVOURS["openmpi"].pinning(topology, place(topology), version)


def test_srun_is_given_masks() -> None:
    topology = machine(packages=2, snc=1, cores=34, ht=False)
    assert srun_binding(place(topology)) == f"--cpu-bind=mask_cpu:{(1 << 34) - 1:#x},{((1 << 34) - 1) << 34:#x}"


def test_the_memory_without_cpus_changes_no_pinning() -> None:
    flat, cache = max9462("flat"), max9462("cache")
    for flavour in FLAVOURS.values():
        assert flavour.pinning(flat, place(flat), "5.0") == flavour.pinning(cache, place(cache), "5.0")


def test_each_is_told_of_another_remote_shell() -> None:
    assert FLAVOURS["intel"].remote_shell("/x/sh", "2021.18.1") == ("-bootstrap", "ssh", "-bootstrap-exec", "/x/sh")
    assert FLAVOURS["mpich"].remote_shell("/x/sh", "5.0.2") == ("-launcher", "ssh", "-launcher-exec", "/x/sh")
    assert FLAVOURS["openmpi"].remote_shell("/x/sh", "4.1.4") == ("--mca", "plm_rsh_agent", "/x/sh")
    assert FLAVOURS["openmpi"].remote_shell("/x/sh", "5.0.11") == ("--prtemca", "plm_ssh_agent", "/x/sh")
