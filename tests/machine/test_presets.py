from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.errors import UsageError
from glmpatch.machine import hwloc, presets
from glmpatch.machine.read import read_topology
from glmpatch.machine.topology import ISA_FLAGS, Topology
from tests.machine.machines import GIB
from tests.machine.real_files import REAL_FILES, real_file

# The packages, their clusters, all cores, the threads of each; how the HBM is used, and its GiB.
EXPECTED = {
    "8480-snc4": (2, 4, 112, 2, "none", 0),
    "8480-snc1": (2, 1, 112, 2, "none", 0),
    "max9462-cache": (2, 4, 64, 2, "cache", 128),
    "max9462-flat": (2, 4, 64, 2, "flat", 128),
    "max9462-only": (2, 4, 64, 2, "only", 128),
    "max9480-flat": (2, 4, 112, 2, "flat", 128),
    "6430": (2, 1, 64, 2, "none", 0),
    "vm-2core": (1, 1, 2, 1, "none", 0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_preset(name: str) -> None:
    topology = read_topology(name)
    hbm = sum(node.cache + node.memory * (node.kind == "hbm") for node in topology.nodes) // GIB
    counts = (len(topology.packages), topology.snc, len(topology.cores), topology.threads_per_core)
    assert (*counts, topology.hbm_mode, hbm) == EXPECTED[name]
    assert topology.source == f"preset {name}"
    assert topology.isa == tuple(flag for flag in ISA_FLAGS if flag in (topology.isa or ()))


def test_all_presets_are_tested_and_have_sources() -> None:
    assert set(presets.names()) == set(EXPECTED)
    for name, machine in presets.machines().items():
        assert machine.sources, name
        assert all(source.startswith("https://") for source in machine.sources), name


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_what_its_xml_says(name: str) -> None:
    topology = presets.load(name)
    assert replace(hwloc.parse(hwloc.render(topology).encode(), topology.source), isa=topology.isa) == topology


@pytest.mark.parametrize(("name", "file"), [("max9462-flat", REAL_FILES[0]), ("max9462-cache", REAL_FILES[1])])
def test_the_presets_of_the_9462_are_real_machines(name: str, file: str) -> None:
    def regular(topology: Topology) -> Topology:
        # The kernel has taken some memory for itself.
        nodes = tuple(replace(node, memory=round(node.memory / (8 * GIB))) for node in topology.nodes)
        return replace(topology, source="", isa=None, nodes=nodes)

    assert regular(presets.load(name)) == regular(hwloc.parse(real_file(file).read_bytes(), ""))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max9462", "did you mean max9462-"),
        ("8480-snc-4", "did you mean 8480-snc4? the"),
        ("node.xml", "the presets are 8"),
    ],
)
def test_unknown_names(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match="there is no preset and no file of that name") as caught:
        read_topology(name)
    assert caught.value.hint.startswith(meant)
    assert all(known in caught.value.hint for known in presets.names())
    with pytest.raises(UsageError, match="there is no preset of that name"):
        presets.load(name)


def test_a_folder_is_no_topology(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        read_topology(str(tmp_path))


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "the node.xml"
    file.write_text(hwloc.render(presets.load("6430")), encoding="utf-8")
    expected = replace(presets.load("6430"), source=str(file), isa=None)
    assert read_topology(str(file)) == expected
