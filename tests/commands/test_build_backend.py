from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.building.backend import BackendOptions, BackendResult, BackendState
from glmpatch.building.prove import Proof
from glmpatch.building.steps import OnEvent, Progress, StepStarted
from glmpatch.cli import run
from glmpatch.errors import BuildFailedError, ExitCode
from tests.building.test_record import INFO

BUILT = BackendResult(BackendState.BUILT, INFO.torch, INFO, proof=Proof(2, ("float32", "bfloat16")))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BackendOptions]:
    """What the command asks for, and what is built: `BUILT`."""
    return building(monkeypatch, BUILT)


def building(monkeypatch: pytest.MonkeyPatch, result: BackendResult) -> list[BackendOptions]:
    asked: list[BackendOptions] = []

    def build_backend(options: BackendOptions, on_event: OnEvent) -> BackendResult:
        asked.append(options)
        on_event(StepStarted("build", "compile [it]"))
        on_event(Progress("build", 1, 2))
        return result

    monkeypatch.setattr("glmpatch.commands.build_backend.build_backend", build_backend)
    return asked


def test_it_tells_what_it_built_and_the_proof(asked: list[BackendOptions], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build-backend", "--mpi", "mpich"]) == ExitCode.DONE
    assert asked == [BackendOptions("mpich")]
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "* compile [it]"
    assert f"backend    glmpatch-mpi {INFO.version}" in lines
    assert "MPI        MPICH 5.0.2 in /mpi" in lines
    (proof,) = (line for line in lines if line.startswith("proof"))
    assert "2 ranks: all_reduce of float32 and bfloat16 is right" in proof
    assert lines[-1].startswith("installed  ")


def test_every_option_arrives(asked: list[BackendOptions], tmp_path: Path) -> None:
    options = ["--mpi-root", "/mpi", "--wheel-dir", str(tmp_path), "--jobs", "3", "--force"]
    assert run(["build-backend", "--mpi", "intel", *options]) == ExitCode.DONE
    assert asked == [BackendOptions("intel", Path("/mpi"), tmp_path, 3, force=True)]


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    building(monkeypatch, BackendResult(BackendState.CURRENT, INFO.torch, INFO, Path("/dist/a.whl")))
    assert run(["build-backend", "--mpi", "mpich"]) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "/dist/a.whl" in out
    assert "nothing to do: nothing has changed since it was built" in out


def test_a_torch_with_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    building(monkeypatch, BackendResult(BackendState.OWN, "2.6.0"))
    assert run(["build-backend", "--mpi", "mpich"]) == ExitCode.DONE
    assert "torch 2.6.0 was built with MPI and has its own backend: nothing to do" in capsys.readouterr().out


def test_a_failed_build_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> BackendResult:
        raise BuildFailedError("the compilation failed", hint="the log is there")

    monkeypatch.setattr("glmpatch.commands.build_backend.build_backend", fail)
    assert run(["build-backend", "--mpi", "mpich"]) == 4
    err = capsys.readouterr().err
    assert "the compilation failed" in err
    assert "the log is there" in err


@pytest.mark.parametrize("arguments", [[], ["--mpi", "lam"], ["--mpi", "mpich", "--jobs", "0"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert run(["build-backend", *arguments]) == ExitCode.USAGE
