"""`glmpatch topology`."""

from __future__ import annotations

from typing import Any, get_args

import click
import msgspec
from rich.text import Text

from glmpatch.commands.machine_options import topology_options
from glmpatch.commands.options import json_option
from glmpatch.console import make_console, print_json, print_line
from glmpatch.machine import presets
from glmpatch.machine.memory import MemoryPlan, describe, plan_memory
from glmpatch.machine.need import CHATGLM_6B, NeedDtype, Workload, rank_need
from glmpatch.machine.picture import draw, summarise, wrap
from glmpatch.machine.placement import Placement
from glmpatch.machine.topology import Topology


def _list_presets(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        console = make_console()
        for name in presets.names():
            topology = presets.load(name)
            print_line(console, Text(name, "bold"), f"  {topology.model}")
            print_line(console, f"  {summarise(topology)}")
        context.exit()


@click.command()
@topology_options
@click.option(
    "--list-presets", is_flag=True, is_eager=True, expose_value=False, callback=_list_presets, help="List the presets."
)
@click.option("--memory", "with_memory", is_flag=True, help="Add what the ranks need, and which mode of HBM is best.")
@click.option(
    "--dtype",
    type=click.Choice(get_args(NeedDtype)),
    default="bf16",
    show_default=True,
    help="Of the weights that the ranks hold, for --memory.",
)
@json_option
def command(*, topology: Topology, placement: Placement, with_memory: bool, dtype: NeedDtype, as_json: bool) -> None:
    """Show a machine: sockets, clusters, cores, memory, and where each rank would sit.

    A cluster is a NUMA node with CPUs: a socket, or with sub-NUMA clustering a part of it. Each rank gets physical
    cores of its own, and as many as the others. The memory that they need is reckoned for ChatGLM-6B as train.sh tunes
    it.
    """
    memory = plan_memory(topology, placement, rank_need(CHATGLM_6B, Workload(dtype)))
    if as_json:
        print_json(_as_json(topology, placement, memory))
        return
    console = make_console()
    print_line(console, draw(topology, placement, width=console.width, ascii_only=console.options.ascii_only).rstrip())
    if with_memory:
        print_line(console, "\n".join(wrap(describe(memory), console.width)))
    for note in topology.notes:
        print_line(console, Text("note: ", "yellow"), note)


def _as_json(topology: Topology, placement: Placement, memory: MemoryPlan) -> dict[str, Any]:
    """The model in full, and what is derived from it."""
    derived = {name: getattr(topology, name) for name in ("packages", "snc", "threads_per_core", "hbm_mode")}
    seats = [{**msgspec.to_builtins(seat), "cpus": seat.cpus} for seat in placement.seats]
    return {
        "topology": {**msgspec.to_builtins(topology), **derived},
        "placement": {"threads": placement.threads, "seats": seats},
        "memory": memory,
    }
