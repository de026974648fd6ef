"""Proves a backend: two ranks, started anew by its MPI, reduce and take a step of DDP."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from glmpatch.building import proof
from glmpatch.building.record import BackendInfo
from glmpatch.building.steps import Command, Step
from glmpatch.building.toolchain import AUTOLOAD, Compiler, sanitizer_environment
from glmpatch.building.wheel import own_variables
from glmpatch.errors import BuildFailedError
from glmpatch.mpi.flavour import Installation

_RANKS = 2
# All three MPIs end a job after so many seconds when they are told so in this variable.
_LIMIT = {"MPIEXEC_TIMEOUT": "180"}


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen to work.

    Attributes:
        ranks: How many there were.
        dtypes: What all_reduce summed right.
    """

    ranks: int
    dtypes: tuple[str, ...]


def verify_step(wheel: Path, info: BackendInfo, mpi: Installation, compiler: Compiler, folder: Path) -> Step:
    """Unpack the wheel into `folder` and use it, before anything is installed."""
    # Python looks for modules beside its script first.
    script = folder / Path(proof.__file__).name
    environment = {
        **mpi.environment(own_variables("PATH", "LD_LIBRARY_PATH")),
        **_LIMIT,
        "PYTHONSAFEPATH": "",
        "OMP_NUM_THREADS": "1",
        AUTOLOAD: "1",
        **(sanitizer_environment(compiler) if info.sanitized else {}),
    }
    expected = ("--ranks", str(_RANKS))
    return Step(
        "verify",
        "prove it with two ranks",
        needs=("build",),
        action=lambda: shutil.unpack_archive(wheel, folder, "zip"),
        commands=(Command(tuple(mpi.launch(_RANKS, [sys.executable, str(script), *expected])), environment),),
        files={script: Path(proof.__file__).read_text(encoding="utf-8")},
    )


def read_proof(log: Path) -> Proof:
    """What the step `verify` saw to work.

    Raises:
        BuildFailedError: Nothing, though all ranks ended well.
    """
    lines = log.read_text(encoding="utf-8").splitlines()
    answer = next((line.partition(proof.MARK)[2] for line in lines if proof.MARK in line), None)
    if answer is None:
        raise BuildFailedError("the step 'verify' ended without a result", hint=f"all that was printed is in {log}")
    facts = json.loads(answer)
    return Proof(facts["ranks"], tuple(facts["dtypes"]))
