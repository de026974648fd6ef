"""The MPIs say themselves where they would put the ranks, on machines that are not here."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.launching.dry_run import dry_run
from glmpatch.launching.verify import verify
from glmpatch.machine import hwloc, presets
from glmpatch.machine.placement import Placement, place
from glmpatch.machine.topology import HbmMode, Topology
from glmpatch.mpi.flavour import Installation
from glmpatch.mpi.intel import Intel
from glmpatch.mpi.mpich import Mpich
from glmpatch.mpi.openmpi import OpenMpi, is_old
from glmpatch.mpi.pinning import Pinning
from tests.machine.machines import allow, machine, max9462, offline
from tests.mpi.installations import NAMES, find

_FILES = Path(os.environ.get("GLMPATCH_TOPOLOGIES", "../shared/topologies"))
# All that can be generated, with all numbers of ranks: minutes instead of seconds.
_SWEEP = bool(os.environ.get("GLMPATCH_SWEEP"))


def _renumbered(topology: Topology, numbers: Mapping[int, int]) -> Topology:
    """The same machine, its CPUs called otherwise."""

    def new(cpus: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(numbers[cpu] for cpu in cpus))

    cores = (replace(core, cpus=new(core.cpus)) for core in topology.cores)
    return replace(
        topology,
        cores=tuple(sorted(cores, key=lambda core: (core.package, core.cpus))),
        nodes=tuple(replace(node, cpus=new(node.cpus)) for node in topology.nodes),
        allowed_cpus=new(topology.allowed_cpus),
    )


def _machines() -> Iterator[tuple[str, Topology]]:
    """Machines, and what is special about them."""
    for packages, snc, ht in itertools.product((1, 2, 4), (1, 2, 4), (True, False)):
        name = f"{packages} packages of {snc} clusters, {'with' if ht else 'without'} hyperthreads"
        yield name, machine(packages=packages, snc=snc, ht=ht)
    yield "HBM alone", max9462("only")
    yield "flat HBM", (flat := max9462("flat"))
    first, second = range(64), range(64, 128)
    yield "no CPU 0", allow(flat, (*first[1:], *second[1:]))
    yield "a cut through clusters", allow(flat, range(5, 40))
    yield "first hyperthreads alone", allow(flat, first)
    yield "second hyperthreads alone", allow(flat, second)
    yield "hyperthreads offline", offline(flat, second)
    both = [*first, *second]
    yield "hyperthreads next to each other", _renumbered(flat, {cpu: cpu % 64 * 2 + cpu // 64 for cpu in both})
    turns = {cpu: cpu // 64 * 64 + cpu % 32 * 2 + cpu // 32 % 2 for cpu in both}
    yield "packages that take turns", _renumbered(flat, turns)
    if _SWEEP:
        modes: tuple[HbmMode, ...] = ("flat", "only", "cache")
        for packages, snc, hbm in itertools.product((1, 2, 4), (1, 2, 4), modes):
            yield f"{packages} packages of {snc} clusters, HBM {hbm}", machine(packages=packages, snc=snc, hbm=hbm)
        yield from ((f"preset {name}", presets.load(name)) for name in presets.names())


_MACHINES = dict(_machines())
# With more ranks than the default, too.
_THOROUGH = {"flat HBM", "no CPU 0", "a cut through clusters", "packages that take turns"}


@pytest.fixture(params=NAMES)
def mpi(request: pytest.FixtureRequest) -> Installation:
    return find(request.param)


def _check_all(mpi: Installation, topology: Topology, *, thorough: bool, xml: bytes | None = None) -> None:
    """Verify the placements of one machine: by default, and with half as many ranks, twice as many, and three."""
    default = len(place(topology).seats)
    cores = len(topology.usable_cores)
    for ranks in sorted({default, max(1, default // 2), default * 2, 3} if thorough else {default}):
        if ranks <= cores:
            found = verify(mpi, topology, place(topology, ranks=ranks), xml=xml)
            assert [check.rank for check in found.ranks] == list(range(ranks))
            assert found.agrees, [check for check in found.ranks if not check.agrees]


@pytest.mark.parametrize("name", _MACHINES)
def test_ranks_go_where_the_placement_says(mpi: Installation, name: str) -> None:
    _check_all(mpi, _MACHINES[name], thorough=_SWEEP or name in _THOROUGH)


@pytest.mark.parametrize("name", ["topo.dp-intelmax01.xml", "topo.dp-intelmax01-flat.xml"])
def test_ranks_go_where_the_placement_says_on_a_real_xeon_max(mpi: Installation, name: str) -> None:
    if not _FILES.is_dir():
        pytest.skip(f"no {_FILES}; set GLMPATCH_TOPOLOGIES")
    data = (_FILES / name).read_bytes()
    topology = hwloc.parse(data, name)
    _check_all(mpi, topology, thorough=True, xml=data)
    # What is written of it is as good.
    _check_all(mpi, topology, thorough=False)


class _NumaIntel(Intel):
    """Counts the nodes of HBM, too: two ranks on each cluster of the first half."""

    def pinning(self, *_: object) -> Pinning:
        return Pinning((), {"I_MPI_PIN_CELL": "core", "I_MPI_PIN_DOMAIN": "numa"})


class _NumaOpenMpi(OpenMpi):
    """The same in Open MPI's words; the old kind tells of a rankfile alone, and gets one from behind."""

    def pinning(self, topology: Topology, placement: Placement, version: str) -> Pinning:
        if is_old(version):
            right = super().pinning(topology, placement, version)
            return replace(right, slots=right.slots[::-1])
        return Pinning(("--map-by", "ppr:1:numa:HWTCPUS", "--bind-to", "numa"))


class _PackageMpich(Mpich):
    """All ranks of a package share it."""

    def pinning(self, *_: object) -> Pinning:
        return Pinning(("-bind-to", "socket"))


_WRONG = {"intel": _NumaIntel(), "openmpi": _NumaOpenMpi(), "mpich": _PackageMpich()}


def test_ranks_that_would_go_elsewhere_are_found(mpi: Installation) -> None:
    topology = max9462("flat")
    wrong = replace(mpi, flavour=_WRONG[mpi.flavour.id])
    found = verify(wrong, topology, place(topology))
    assert not found.agrees
    # The first cluster of a package is the only one whose rank may be where it should.
    assert not any(check.agrees for check in found.ranks if check.rank % 4)
    assert found.ranks[7].expected == tuple(range(56, 64))
    assert not set(found.ranks[7].expected) & set(found.ranks[7].cpus) or mpi.flavour.id == "mpich"


class _UnboundIntel(Intel):
    def pinning(self, *_: object) -> Pinning:
        return Pinning((), {"I_MPI_PIN": "off"})


class _UnboundOpenMpi(OpenMpi):
    def pinning(self, *_: object) -> Pinning:
        return Pinning(("--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"))


@pytest.mark.parametrize("flavour", [_UnboundIntel(), _UnboundOpenMpi()], ids=lambda flavour: flavour.id)
def test_ranks_that_would_go_anywhere_are_found(flavour: Intel | OpenMpi) -> None:
    topology = machine(packages=1, snc=2)
    found = verify(replace(find(flavour.id), flavour=flavour), topology, place(topology))
    assert [(check.cpus, check.agrees) for check in found.ranks] == [(topology.allowed_cpus, False)] * 2


class _BrokenIntel(Intel):
    def pinning(self, *_: object) -> Pinning:
        return Pinning(("-no-such-option",))


class _VagueOpenMpi(OpenMpi):
    def pinning(self, *_: object) -> Pinning:
        return Pinning(("--map-by", "ppr:1:package", "--bind-to", "core"))


class _SilentMpich(Mpich):
    def pinning(self, *_: object) -> Pinning:
        return Pinning(())


@pytest.mark.parametrize(
    ("flavour", "message"),
    [
        (_BrokenIntel(), r"does not tell where it would put the ranks: (?s:.*)no-such-option"),
        (_VagueOpenMpi(), r"tells 'package\[0\]\[core:L0\]' of a rank:\n(?s:.*)Data for proc"),
        (_SilentMpich(), "tells nothing of rank 0:"),
    ],
    ids=["intel", "openmpi", "mpich"],
)
def test_an_answer_that_is_none_is_no_agreement(flavour: Intel | OpenMpi | Mpich, message: str) -> None:
    mpi = replace(find(flavour.id), flavour=flavour)
    topology = machine(packages=2, snc=1)
    with pytest.raises(EnvironmentLacksError, match=f"^{re.escape(mpi.flavour.title)} {mpi.version} .*{message}"):
        verify(mpi, topology, place(topology))


def test_mpich_tells_of_as_many_cpus_as_there_are_though_some_are_offline() -> None:
    topology = offline(machine(packages=1, snc=1), [1])
    with pytest.raises(EnvironmentLacksError, match="tells only the CPUs below 15:"):
        verify(find("mpich"), topology, place(topology))


def test_a_list_of_cpus_that_is_too_long_is_refused(mpi: Installation) -> None:
    topology = machine(packages=1, snc=1, cores=120, ht=False)
    topology = allow(topology, range(0, 120, 2))
    if mpi.flavour.id == "openmpi":
        with pytest.raises(UsageError, match="too few for"):
            verify(mpi, topology, place(topology))
    else:
        assert verify(mpi, topology, place(topology)).agrees


def test_the_machine_is_that_of_the_file(mpi: Installation) -> None:
    large, small = machine(), machine(packages=1, snc=1, cores=2)
    data = hwloc.render(small).encode()
    try:
        agrees = verify(mpi, large, place(large), xml=data).agrees
    except EnvironmentLacksError:
        agrees = False
    assert not agrees


@pytest.mark.parametrize(
    "told",
    [
        {"I_MPI_PIN": "off", "I_MPI_PIN_PROCESSOR_LIST": "0,1", "HYDRA_BINDING": "none", "I_MPI_DEBUG": "5"},
        {"I_MPI_PIN_PROCESSOR_EXCLUDE_LIST": "0", "I_MPI_PIN_INFO": "0-3", "PRTE_MCA_hwloc_use_topo_file": "none"},
        {"HWLOC_COMPONENTS": "-xml", "HWLOC_THISSYSTEM": "1", "HWLOC_XML_VERBOSE": "1"},
    ],
)
def test_what_a_user_has_told_the_mpi_does_not_matter(
    mpi: Installation, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    topology = machine(packages=1, snc=2)
    assert verify(mpi, topology, place(topology)).agrees


def test_a_rank_that_is_told_of_twice_is_at_one_place() -> None:
    asked, topology = dry_run(find("intel")), machine(packages=1, snc=2)
    assert asked.answer("[0] 0-3\n[1] 4\n[0] 0,1,2,3\n", topology) == {0: frozenset(range(4)), 1: frozenset([4])}
    with pytest.raises(ValueError, match="two places for rank 0"):
        asked.answer("[0] 0-3\n[0] 4-7\n", topology)


def test_it_needs_no_scheduler_and_leaves_nothing(
    mpi: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "a: b, c'$(d)"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for name, value in {"JOB_ID": "1", "NNODES": "2", "JOB_NODELIST": "nowhere", "TASKS_PER_NODE": "1(x2)"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    topology = machine(packages=1, snc=2)
    assert verify(mpi, topology, place(topology)).agrees
    assert not list(scratch.iterdir())
