"""Proves a backend: two ranks, started anew by its MPI, reduce and take a step of DDP."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from glmpatch.building import proof
from glmpatch.building.logged import logged
from glmpatch.building.record import BackendInfo
from glmpatch.building.toolchain import AUTOLOAD, Compiler, sanitizer_environment
from glmpatch.errors import BuildFailedError
from glmpatch.mpi.flavour import Installation
from glmpatch.process import stream

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


def prove(wheel: Path, info: BackendInfo, mpi: Installation, compiler: Compiler, folder: Path) -> Proof:
    """Unpack the wheel into `folder` and use it, before anything is installed.

    Raises:
        BuildFailedError: It does not work.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # Python looks for modules beside its script first.
    script = str(shutil.copy(proof.__file__, folder))
    environment = {
        **mpi.environment(os.environ),
        **_LIMIT,
        "PYTHONSAFEPATH": "",
        "OMP_NUM_THREADS": "1",
        AUTOLOAD: "1",
        **(sanitizer_environment(compiler) if info.sanitized else {}),
    }
    command = mpi.launch(_RANKS, [sys.executable, script])
    with closing(logged(stream(command, env=environment), "the proof of the MPI backend")) as lines:
        answers = [line.partition(proof.MARK)[2] for line in lines if proof.MARK in line]
    if not answers:
        raise BuildFailedError("the proof of the MPI backend ended without a result")
    facts = json.loads(answers[0])
    return Proof(facts["ranks"], tuple(facts["dtypes"]))
