from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from glmpatch.cli import run
from glmpatch.errors import ExitCode
from glmpatch.machine import presets
from glmpatch.machine.hwloc_render import render
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.machine.topology import Topology
from tests.commands.conftest import Run


def test_this_machine(glmpatch: Run) -> None:
    result = glmpatch("topology")
    assert result.code == ExitCode.DONE
    topology = read_topology(None)
    lines = result.out.splitlines()
    assert lines[0] == (f"{topology.model} (this machine)" if topology.model else "this machine")
    assert "┌ socket" in result.out
    assert [line for line in lines if line.startswith("note: ")] == [f"note: {note}" for note in topology.notes]


def test_a_preset_and_the_ranks_that_are_asked_for(glmpatch: Run) -> None:
    result = glmpatch(
        "topology", "--topology", "max9462-flat", "--ranks", "2", "--threads", "20", "--reserve-cores", "3"
    )
    assert result.code == ExitCode.DONE
    assert "2 ranks, 20 threads each, 3 of 23 cores in reserve\n" in result.out


def test_what_does_not_fit_is_wrong_usage(glmpatch: Run) -> None:
    result = glmpatch("topology", "--topology", "vm-2core", "--ranks", "3")
    assert result.code == ExitCode.USAGE
    assert "3 ranks need 3 cores, 2 are usable" in result.err
    assert glmpatch("topology", "--ranks", "0").code == ExitCode.USAGE
    assert glmpatch("topology", "--reserve-cores", "-1").code == ExitCode.USAGE


def test_a_machine_that_nobody_knows(glmpatch: Run) -> None:
    result = glmpatch("topology", "--topology", "max9462-flt")
    assert result.code == ExitCode.USAGE
    assert "max9462-flat" in result.err


def test_a_name_that_is_not_utf_8(glmpatch: Run, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.xml")
    file.write_text(render(presets.load("vm-2core")))
    document = glmpatch("topology", "--topology", file, "--json").json
    assert document["topology"]["source"] == f"{tmp_path}/\N{REPLACEMENT CHARACTER}.xml"


def test_a_file_without_end(glmpatch: Run) -> None:
    result = glmpatch("topology", "--topology", "/dev/zero")
    assert result.code == ExitCode.USAGE
    assert "it has more than 64 MB" in result.err


def test_json_has_the_whole_model(glmpatch: Run) -> None:
    document = glmpatch("topology", "--topology", "max9462-flat", "--json").json
    topology = presets.load("max9462-flat")
    assert msgspec.convert(document["topology"], Topology) == topology
    assert {name: document["topology"][name] for name in ("packages", "snc", "threads_per_core", "hbm_mode")} == {
        "packages": [0, 1],
        "snc": 4,
        "threads_per_core": 2,
        "hbm_mode": "flat",
    }
    assert document["placement"]["threads"] == 8
    assert [seat["cpus"] for seat in document["placement"]["seats"]] == [
        list(seat.cpus) for seat in place(topology).seats
    ]
    assert sorted(document["placement"]["seats"][0]) == ["clusters", "cores", "cpus", "memory_node", "rank"]


def test_memory_against_what_the_machine_has(glmpatch: Run) -> None:
    plain = glmpatch("topology", "--topology", "max9462-flat")
    result = glmpatch("topology", "--topology", "max9462-flat", "--memory")
    assert result.out.startswith(plain.out)
    bf16, fp32 = (
        glmpatch("topology", "--topology", "max9462-flat", "--dtype", dtype, "--json").json["memory"]
        for dtype in ("bf16", "fp32")
    )
    assert f"memory {bf16['verdict']}: " in result.out
    weights = [
        part["size"] for plan in (bf16, fp32) for part in plan["need"]["steady"] if part["title"] == "frozen weights"
    ]
    assert weights[1] == 2 * weights[0]


def test_the_presets(glmpatch: Run) -> None:
    result = glmpatch("topology", "--list-presets", "--ranks", "1000")
    assert result.code == ExitCode.DONE
    assert [line.split()[0] for line in result.out.splitlines()[::2]] == list(presets.names())
    assert "  2 sockets, 8 clusters (SNC4), 64 cores, 128 CPUs, 1024 GiB DDR, 128 GiB HBM in flat mode\n" in result.out


def test_a_terminal_that_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(["topology", "--topology", "6430"]) == ExitCode.DONE
    stream.flush()
    assert b"+ socket 0 -+ + socket 1 -+\n" in stream.buffer.getvalue()


def test_what_the_source_does_not_tell_is_noted(glmpatch: Run, tmp_path: Path) -> None:
    text = render(presets.load("vm-2core"))
    file = tmp_path / "node.xml"
    file.write_text(re.sub(r'<object type="Package"(.*?)>', r'<object type="Group"\1>', text))
    result = glmpatch("topology", "--topology", file)
    assert result.code == ExitCode.DONE
    assert result.out.endswith("\nnote: The packages are not told: taken for one.\n")
