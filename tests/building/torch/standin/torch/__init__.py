"""Becomes the PyTorch whose packages are in the folder STANDIN_TORCH, with the version and the MPI of this build."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def _become(site: str) -> None:
    """Put the real one in the place of this module, which Python has not finished to import."""
    del sys.modules[__name__]
    # First now, for it is to be found instead of this one, and last ever after, as what it needs is there, too.
    sys.path.insert(0, site)
    real: Any = importlib.import_module(__name__)
    sys.path.remove(site)
    sys.path.append(site)
    version = runpy.run_path(str(_HERE / "version.py"))["__version__"]
    real.__version__ = real.version.__version__ = real.torch_version.TorchVersion(version)
    real.__path__.insert(0, str(_HERE))
    importlib.import_module(f"{__name__}.standin_mpi").register()


if "STANDIN_TORCH" not in os.environ:
    raise ImportError("STANDIN_TORCH must name the folder of packages with the real PyTorch")
_become(os.environ["STANDIN_TORCH"])
