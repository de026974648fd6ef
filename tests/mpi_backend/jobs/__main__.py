"""Run the jobs named on the command line one after the other in one process: to start one costs more than to run it."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module


def main() -> None:
    warnings.simplefilter("ignore")  # torch's own: of deprecated names and experimental dtypes
    for name in sys.argv[1:]:
        import_module(f"tests.mpi_backend.jobs.{name}").main()


if __name__ == "__main__":
    main()
