"""The XML files of real machines: a 9462 in flat mode, and in cache mode. Not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_FILES = ("topo.dp-intelmax01-flat.xml", "topo.dp-intelmax01.xml")


def real_file(name: str) -> Path:
    """The path of one of them. Skips the test without."""
    beside = Path(__file__).parents[3] / "shared/topologies"
    file = Path(os.environ.get("GLMPATCH_TOPOLOGIES", beside)) / name
    if not file.is_file():
        pytest.skip(f"{file} is not there: GLMPATCH_TOPOLOGIES can name its folder")
    return file
