"""Gives the PyTorch that is already installed an MPI backend: preflight, build, prove, install."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TypeAlias

from glmpatch.building.packages import install, mpi_packages, why_pip_cannot
from glmpatch.building.preflight import (
    TorchFacts,
    ask_torch,
    problems_of_folders,
    problems_of_mpi,
    problems_of_tools,
    problems_of_torch,
)
from glmpatch.building.problem import Problem, require_none
from glmpatch.building.prove import Proof, prove
from glmpatch.building.record import BackendInfo, backend_in_wheel, installed_backend
from glmpatch.building.toolchain import Compiler, Torch, find_compiler, find_torch, hash_inputs, sanitize
from glmpatch.building.wheel import Compiled, build_wheel, wheel_version
from glmpatch.errors import EnvironmentLacksError
from glmpatch.locking import locked
from glmpatch.mpi import FLAVOURS, FlavourId
from glmpatch.mpi.flavour import Installation, Search

_LOCK = ".glmpatch-mpi.lock"


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


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the build has begun. `title` says which, in a few words."""

    title: str


BackendEvent: TypeAlias = Stage | Compiled


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


def build_backend(options: BackendOptions, on_event: Callable[[BackendEvent], None]) -> BackendResult:
    """Build the backend and prove it, then install it or hand it over as a wheel. Nothing changed, nothing is done.

    Raises:
        EnvironmentLacksError: Something is missing: all that is, is told at once. Or pip failed.
        BuildFailedError: It does not compile, or does not work. Nothing is installed then.
    """
    with _lock(Path(sys.prefix), on_event):
        torch, compiler = find_torch(), find_compiler()
        search = FLAVOURS[options.flavour].search(options.mpi_root)
        if torch and compiler and search.installation and not options.force:
            current = _current(options, hash_inputs(torch, compiler, search.installation))
            if current:
                return current
        on_event(Stage("look for everything that the build needs"))
        facts = ask_torch()
        if isinstance(facts, TorchFacts) and facts.own_mpi:
            return BackendResult(BackendState.OWN, facts.version)
        _require_everything(options, facts, compiler, search)
        assert isinstance(facts, TorchFacts)  # noqa: S101 - for mypy, as the next
        assert compiler is not None  # noqa: S101
        for reason in search.passed_over:
            on_event(Stage(f"pass over an MPI: {reason}"))
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
        ]
    )


def _install_mpi(flavour: FlavourId, on_event: Callable[[BackendEvent], None]) -> Installation:
    packages = mpi_packages(flavour)
    on_event(Stage(f"install {' and '.join(packages)} into {sys.prefix}"))
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
    options: BackendOptions,
    info: BackendInfo,
    compiler: Compiler,
    mpi: Installation,
    on_event: Callable[[BackendEvent], None],
) -> BackendResult:
    """The long part. The wheel is proved before it takes the place of one that works."""
    with tempfile.TemporaryDirectory(prefix="glmpatch-build-") as scratch:
        folder = Path(scratch)
        on_event(Stage(f"compile for torch {info.torch} and {info.mpi} {info.mpi_version}"))
        wheel = build_wheel(info, compiler, folder, jobs=options.jobs, on_compiled=on_event)
        on_event(Stage("prove it with two ranks"))
        proof = prove(wheel, info, mpi, compiler, folder / "unpacked")
        if options.wheel_dir is None:
            on_event(Stage(f"install into {sys.prefix}"))
            _install_wheel(wheel, info)
            return BackendResult(BackendState.BUILT, info.torch, info, proof=proof)
        kept = _hand_over(wheel, options.wheel_dir)
    return BackendResult(BackendState.BUILT, info.torch, info, kept, proof)


def _install_wheel(wheel: Path, info: BackendInfo) -> None:
    """Install it, and see that it is what this Python finds."""
    install([wheel], local=True, hint="or keep the wheel with --wheel-dir, and install it yourself")
    importlib.invalidate_caches()
    if installed_backend() != info:
        raise EnvironmentLacksError(
            "the backend is installed, but this Python finds another one, or none",
            hint="see whether PYTHONPATH or pip's own settings (target, user, prefix) lead elsewhere",
        )


def _hand_over(wheel: Path, folder: Path) -> Path:
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
    return folder / wheel.name


def _lock(environment: Path, on_event: Callable[[BackendEvent], None]) -> AbstractContextManager[None]:
    """Keep other builds out of this environment. Where nothing can be written, none can install."""
    if not os.access(environment, os.W_OK):
        return nullcontext()
    return locked(environment / _LOCK, lambda: on_event(Stage(f"wait for another build for {environment}")))
