"""Run benchmarks and print their tables: `python -m tests.bench [patching] [checking] [backend]`, all by default."""

from __future__ import annotations

import sys

from glmpatch.console import make_console
from tests.bench import backend, checking, patching

REPORTS = {"patching": patching.report, "checking": checking.report, "backend": backend.report}


def main() -> None:
    """Print what is asked for."""
    console = make_console()
    for name in sys.argv[1:] or REPORTS:
        REPORTS[name](console)


if __name__ == "__main__":
    main()
