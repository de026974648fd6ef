"""The options of the commands that look at a machine."""

from __future__ import annotations

from functools import wraps
from typing import Any

import click

from glmpatch.commands.options import Command, with_options
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology


def topology_options(command: Command) -> Command:
    """Add the options that say which machine, and how many ranks; the command gets `topology` and `placement`."""

    @wraps(command)
    def wrapper(
        *, topology: str | None, ranks: int | None, threads: int | None, reserve_cores: int, **rest: Any
    ) -> Any:
        machine = read_topology(topology)
        placement = place(machine, ranks=ranks, threads=threads, reserve_cores=reserve_cores)
        return command(topology=machine, placement=placement, **rest)

    return with_options(
        wrapper,
        click.option(
            "--topology",
            metavar="PRESET|XML",
            show_default="this machine",
            help="Another machine: the name of a preset, or a file that `lstopo FILE.xml` made.",
        ),
        click.option(
            "--ranks",
            metavar="N",
            type=click.IntRange(min=1),
            show_default="one a cluster",
            help="The ranks on the machine. A cluster is a NUMA node with CPUs.",
        ),
        click.option(
            "--threads",
            metavar="N",
            type=click.IntRange(min=1),
            show_default="one a core",
            help="The threads of each rank.",
        ),
        click.option(
            "--reserve-cores",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Cores of each rank that get no thread, left to the system and to communication.",
        ),
    )
