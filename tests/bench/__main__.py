"""Run benchmarks and print their tables: `python -m tests.bench [NAME ...]`, all by default."""

from __future__ import annotations

import sys

from glmpatch.console import make_console
from tests.bench import backend, checking, machine, patching

REPORTS = {
    "patching": patching.report,
    "machine": machine.report,
    "checking": checking.report,
    "backend": backend.report,
}


def main() -> None:
    """Print what is asked for."""
    console = make_console()
    for name in sys.argv[1:] or REPORTS:
        REPORTS[name](console)


if __name__ == "__main__":
    main()
