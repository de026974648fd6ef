from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from glmpatch.building.record import BackendInfo
from glmpatch.errors import ExitCode, GlmpatchError
from glmpatch.launching import plan
from glmpatch.launching.plan import choose_mpi, find_built_for
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import FlavourId, Installation
from tests.mpi_support import ALL_FLAVOURS, installation
from tests.training.test_launcher import BUILT


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without an MPI and without a backend."""
    monkeypatch.setattr(plan, "installed_backend", lambda: None)
    for flavour in FLAVOURS.values():
        monkeypatch.setattr(type(flavour), "roots", lambda _self: iter(()))
    return monkeypatch


def has(machine: pytest.MonkeyPatch, *flavours: FlavourId) -> None:
    """Those MPIs are found."""
    for each in flavours:
        machine.setattr(type(FLAVOURS[each]), "roots", lambda self: iter([installation(self.id).root]))


def built_for(mpi: Installation, **changes: str) -> BackendInfo:
    info = msgspec.structs.replace(BUILT, flavour=mpi.flavour.id, mpi_root=str(mpi.root), identity=mpi.identity)
    return msgspec.structs.replace(info, **changes)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_the_mpi_of_the_backend_comes_first(machine: pytest.MonkeyPatch, flavour: FlavourId) -> None:
    has(machine, *ALL_FLAVOURS)
    machine.setattr(plan, "installed_backend", lambda: built_for(installation(flavour)))
    for asked in (None, flavour):
        chosen = choose_mpi(asked, None, here=True)
        assert (chosen.flavour, chosen.installation) == (FLAVOURS[flavour], installation(flavour))
    assert chosen.title == f"{FLAVOURS[flavour].title} {installation(flavour).version}"


def test_another_mpi_than_that_of_the_backend_if_it_is_asked_for(machine: pytest.MonkeyPatch) -> None:
    has(machine, "mpich")
    machine.setattr(plan, "installed_backend", lambda: built_for(installation("openmpi")))
    assert choose_mpi("mpich", None, here=True).installation == installation("mpich")
    assert choose_mpi(None, installation("mpich").root, here=True).installation == installation("mpich")


def test_the_mpi_of_the_backend_has_moved_or_changed(machine: pytest.MonkeyPatch) -> None:
    has(machine, "openmpi", "mpich")
    moved = built_for(installation("mpich"), mpi_root="/nowhere")
    assert find_built_for(moved) == installation("mpich")
    changed = built_for(installation("mpich"), identity="MPICH Version: 3.0")
    assert find_built_for(changed) is None
    machine.setattr(plan, "installed_backend", lambda: changed)
    # The same kind, before all others.
    assert choose_mpi(None, None, here=True).installation == installation("mpich")


def test_without_a_backend_the_first_that_is_there(machine: pytest.MonkeyPatch) -> None:
    has(machine, "openmpi")
    assert choose_mpi(None, None, here=True).installation == installation("openmpi")
    has(machine, "intel", "mpich")
    assert choose_mpi(None, None, here=True).installation == installation("intel")


@pytest.mark.usefixtures("machine")
def test_none_on_this_machine() -> None:
    with pytest.raises(GlmpatchError, match="no Intel MPI or Open MPI or MPICH was found on this machine") as caught:
        choose_mpi(None, None, here=True)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint.startswith("glmpatch build-backend --mpi intel installs it")
    with pytest.raises(GlmpatchError, match="no MPICH was found on this machine"):
        choose_mpi("mpich", None, here=True)


@pytest.mark.usefixtures("machine")
def test_none_for_another_machine() -> None:
    for asked in (None, *ALL_FLAVOURS):
        chosen = choose_mpi(asked, None, here=False)
        assert (chosen.flavour.id, chosen.installation) == (asked or "intel", None)
    assert chosen.title.endswith(", as found at launch")


@pytest.mark.usefixtures("machine")
def test_a_root_that_does_not_hold_it_is_an_error_for_any_machine(tmp_path: Path) -> None:
    with pytest.raises(GlmpatchError, match=rf"no MPICH was found in {tmp_path}\n    {tmp_path} has no bin/mpirun"):
        choose_mpi("mpich", tmp_path, here=False)
