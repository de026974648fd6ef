"""Gives the PyTorch that is already installed an MPI backend: preflight, build, prove, install."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from glmpatch.building.packages import alone_in, install, mpi_packages, why_pip_cannot
from glmpatch.building.preflight import (
    TorchFacts,
    ask_torch,
    problems_of_folders,
    problems_of_mpi,
    problems_of_tools,
    problems_of_torch,
)
from glmpatch.building.problem import Problem, require_none
from glmpatch.building.prove import Proof, read_proof, verify_step
from glmpatch.building.record import BackendInfo, backend_in_wheel, installed_backend
from glmpatch.building.state import BuildFolder
from glmpatch.building.steps import OnEvent, Step, StepStarted, run_steps
from glmpatch.building.toolchain import Compiler, Torch, find_compiler, find_torch, hash_inputs, sanitize
from glmpatch.building.wheel import build_step, wheel_version
from glmpatch.errors import BuildFailedError, EnvironmentLacksError
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.mpi.flavour import Installation, Search


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What the user may choose.

    Attributes:
        flavour: The MPI.
        mpi_root: Where it is; None to look for it.
        wheel_dir: A folder for the wheel, which is then not installed; None to install it.
        jobs: Compilers to run at once; None for one on each core.
        force: Build although nothing has changed.
    """

    flavour: FlavourId
    mpi_root: Path | None = None
    wheel_dir: Path | None = None
    jobs: int | None = None
    force: bool = False


class BackendState(Enum):
    """How it ended."""

    BUILT = auto()
    """As asked for."""
    CURRENT = auto()
    """There was nothing to do."""
    OWN = auto()
    """This PyTorch was built with MPI."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """What there is now.

    Attributes:
        state: How it ended.
        torch: `torch.__version__`.
        info: The backend; None if PyTorch has its own.
        wheel: The wheel, if that was asked for.
        proof: What was seen to work, if it was built.
    """

    state: BackendState
    torch: str
    info: BackendInfo | None = None
    wheel: Path | None = None
    proof: Proof | None = None


def build_backend(options: BackendOptions, on_event: OnEvent) -> BackendResult:
    """Build the backend and prove it, then install it or hand it over as a wheel. Nothing changed, nothing is done.

    Raises:
        EnvironmentLacksError: Something is missing: all that is, is told at once. Or pip failed.
        BuildFailedError: It does not compile, or does not work. Nothing is installed then.
    """
    waits = StepStarted("lock", f"wait for another build for {sys.prefix}")
    with alone_in(Path(sys.prefix), lambda: on_event(waits)):
        torch, compiler = find_torch(), find_compiler()
        search = FLAVOURS[options.flavour].search(options.mpi_root)
        if torch and compiler and search.installation and not options.force:
            current = _current(options, hash_inputs(torch, compiler, search.installation))
            if current:
                return current
        on_event(StepStarted("preflight", "look for everything that the build needs"))
        facts = ask_torch()
        if isinstance(facts, TorchFacts) and facts.own_mpi:
            return BackendResult(BackendState.OWN, facts.version)
        _require_everything(options, facts, compiler, search)
        assert isinstance(facts, TorchFacts)  # noqa: S101 - for mypy, as the next
        assert compiler is not None  # noqa: S101
        for reason in search.passed_over:
            on_event(StepStarted("mpi", f"pass over an MPI: {reason}"))
        mpi = search.installation or _install_mpi(options.flavour, on_event)
        inputs = hash_inputs(torch or Torch(facts.version, ""), compiler, mpi)
        return _build(options, _describe(facts.version, compiler, mpi, inputs), compiler, mpi, on_event)


def _current(options: BackendOptions, inputs: str) -> BackendResult | None:
    """The backend that is there already, if it was made of the same."""
    if options.wheel_dir is None:
        info = installed_backend()
        return BackendResult(BackendState.CURRENT, info.torch, info) if info and info.inputs == inputs else None
    for wheel in options.wheel_dir.glob("glmpatch_mpi-*.whl"):
        info = backend_in_wheel(wheel)
        if info and info.inputs == inputs:
            return BackendResult(BackendState.CURRENT, info.torch, info, wheel)
    return None


def _require_everything(
    options: BackendOptions, torch: TorchFacts | Problem, compiler: Compiler | None, search: Search
) -> None:
    needs_pip = options.wheel_dir is None or not (search.installation or options.mpi_root)
    pip_cannot = list(why_pip_cannot()) if needs_pip else []
    require_none(
        [
            *problems_of_torch(torch),
            *problems_of_tools(compiler),
            *problems_of_folders(options.wheel_dir),
            *problems_of_mpi(FLAVOURS[options.flavour], search, options.mpi_root, pip_cannot),
            *pip_cannot,
        ],
        "the MPI backend",
    )


def _install_mpi(flavour: FlavourId, on_event: OnEvent) -> Installation:
    packages = mpi_packages(flavour)
    on_event(StepStarted("mpi", f"install {' and '.join(packages)} into {sys.prefix}"))
    install(packages, hint="check the network, or name an installation with --mpi-root")
    search = FLAVOURS[flavour].search(Path(sys.prefix))
    if search.installation is None:
        raise EnvironmentLacksError(
            f"{' and '.join(packages)} is installed and cannot be used: {'; '.join(search.passed_over)}",
            hint="name another installation with --mpi-root",
        )
    return search.installation


def _describe(torch: str, compiler: Compiler, mpi: Installation, inputs: str) -> BackendInfo:
    return BackendInfo(
        version=wheel_version(torch, mpi),
        torch=torch,
        flavour=mpi.flavour.id,
        mpi=mpi.flavour.title,
        mpi_version=mpi.version,
        mpi_root=str(mpi.root),
        identity=mpi.identity,
        library=mpi.library,
        compiler=compiler.banner,
        compile_flags=mpi.compile_flags,
        link_flags=mpi.link_flags,
        sanitized=sanitize(),
        inputs=inputs,
    )


def _build(
    options: BackendOptions, info: BackendInfo, compiler: Compiler, mpi: Installation, on_event: OnEvent
) -> BackendResult:
    """The long part."""
    with _scratch() as folder:
        run_steps(_steps(options, info, compiler, mpi, folder), folder, on_event)
        kept = options.wheel_dir / _wheel(folder).name if options.wheel_dir else None
        return BackendResult(BackendState.BUILT, info.torch, info, kept, read_proof(folder.log("verify")))


def _steps(
    options: BackendOptions, info: BackendInfo, compiler: Compiler, mpi: Installation, folder: BuildFolder
) -> Iterator[Step]:
    """The wheel is proved before it takes the place of one that works."""
    yield build_step(info, compiler, folder.path, jobs=options.jobs)
    wheel, kept = _wheel(folder), options.wheel_dir
    yield verify_step(wheel, info, mpi, compiler, folder.path / "unpacked")
    read_proof(folder.log("verify"))
    if kept:
        yield Step("hand-over", f"put the wheel into {kept}", ("verify",), action=lambda: _hand_over(wheel, kept))
    else:
        yield Step("install", f"install into {sys.prefix}", ("verify",), action=lambda: _install_wheel(wheel, info))


def _wheel(folder: BuildFolder) -> Path:
    (wheel,) = folder.path.glob("dist/*.whl")
    return wheel


@contextmanager
def _scratch() -> Iterator[BuildFolder]:
    """A folder for one build. What is left of it is the logs, and only if the build failed."""
    folder, failed = BuildFolder(Path(tempfile.mkdtemp(prefix="glmpatch-build-"))), False
    try:
        with folder.hold():
            yield folder
    except BuildFailedError:
        failed = True
        raise
    finally:
        for left in folder.path.iterdir() if failed else [folder.path]:
            if left != folder.log("build").parent:
                # A compiler that was stopped may be taking its own files away.
                shutil.rmtree(left, ignore_errors=True)


def _install_wheel(wheel: Path, info: BackendInfo) -> None:
    """Install it, and see that it is what this Python finds."""
    install([wheel], local=True, hint="or keep the wheel with --wheel-dir, and install it yourself")
    importlib.invalidate_caches()
    if installed_backend() != info:
        raise EnvironmentLacksError(
            "the backend is installed, but this Python finds another one, or none",
            hint="see whether PYTHONPATH or pip's own settings (target, user, prefix) lead elsewhere",
        )


def _hand_over(wheel: Path, folder: Path) -> None:
    """Put the wheel into the folder, whole or not at all.

    Raises:
        EnvironmentLacksError: The folder cannot be made or written to.
    """
    partial = folder / f".{wheel.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(wheel, partial)
            partial.replace(folder / wheel.name)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write the wheel into {folder}: {error.strerror}", hint="name another folder with --wheel-dir"
        ) from error
