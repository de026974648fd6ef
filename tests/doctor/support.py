"""Helpers of the doctor's tests: a machine to look at, and a shell to type mends into."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from glmpatch.doctor.row import Row, State


def is_fine(row: Row) -> bool:
    """Whether it passes, and so has nothing to mend."""
    assert row.evidence
    assert (row.state is State.PASS) == (not row.mend), row
    return row.state is State.PASS


def type_below(root: Path, mend: str) -> None:
    """Type a mend of this machine's `/sys` and `/proc` at those below `root`."""
    typed = mend.replace("sudo ", "").replace(" /", f" {root}/")
    subprocess.run(["bash", "-ec", typed], check=True, stdout=subprocess.DEVNULL)


def apart(script: str, *namespaces: str) -> str:
    """What a script prints in namespaces of its own, as root of them. Skips the test where that is not permitted."""
    command = ["unshare", *namespaces, "bash", "-ec"]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("namespaces need root")
    done = subprocess.run([*command, script], check=True, capture_output=True, text=True)
    return done.stdout
