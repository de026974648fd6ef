"""Builds that are killed, interrupted and started twice: they go on where they were, and nobody is left behind."""

from __future__ import annotations

import json
import signal

import msgspec

from glmpatch.building.state import BuildFolder
from glmpatch.building.torch.plan import STEPS
from tests.building.torch.conftest import Build, Workshop, check_built
from tests.mpi_support import ROOTS


def _kill_in(workshop: Workshop, step: str) -> list[str]:
    """Kill a run as soon as it has begun a step. The steps that were done already."""
    skipped = []
    with workshop.start("--set", workshop.option) as process:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "skipped":
                skipped.append(event["step"])
            if event["event"] == "started" and event["step"] == step:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    return skipped


def test_stops_and_goes_on(workshop: Workshop, build: Build) -> None:
    option = ("--set", "A_BUILD=to stop", "--until", "build")
    with workshop.in_the_middle(*option) as process:
        kernels = workshop.kernels
        assert len(kernels) == 10
        assert workshop.at_work()
        second = build(*option, "--json")
        assert second.code == 3
        assert f"another build is at work in {workshop.work}" in second.err
        assert second.steps("started") == []

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said
    assert workshop.at_work() == []

    with workshop.in_the_middle(*option) as process:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert workshop.at_work() == []

    with workshop.in_the_middle(*option) as process:
        process.kill()
        process.communicate()
        # They do not know of it.
        orphans = workshop.at_work()
        assert orphans
    states = {line["id"]: line["state"] for line in build("--status", "--json").document[0]["steps"]}
    assert states["configure"] == "done"
    assert states["build"] == "begun"
    end = build(*option, "--json")
    assert end.code == 0, end.err
    assert end.steps("started") == ["preflight", "build"]
    assert workshop.at_work() == []
    # Nothing was compiled again, in none of the four runs.
    assert workshop.kernels == kernels
    assert "kernel_" not in workshop.log("build")


def test_killed_in_every_step(workshop: Workshop, build: Build) -> None:
    # What is done is begun again, as if the first run of all had been killed at its end.
    assert build("--until", "patch").code == 0
    folder = BuildFolder(workshop.work)
    for step in STEPS[1:]:
        if record := folder.read(step):
            folder.write(step, msgspec.structs.replace(record, done=False))
    for number, step in enumerate(STEPS):
        skipped = _kill_in(workshop, step)
        # That in which it was killed before may have come to its end after all.
        assert skipped in (list(STEPS[1 : number - 1]), list(STEPS[1:number]))
    end = build("--set", workshop.option, "--json")
    check_built(workshop, end, "mpich", ROOTS / "mpich")
    assert end.steps("skipped") == list(STEPS[1:-1])
    assert workshop.at_work() == []
