"""What the tests of the launch script share: no MPI backend of the environment's, which may be for another MPI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on PYTHONPATH that hides it. Scripts that need a backend have a path of their own."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["glmpatch_mpi"] = None\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder
