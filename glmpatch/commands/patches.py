"""`glmpatch patches`."""

from __future__ import annotations

import click

from glmpatch.commands.options import json_option, series_options
from glmpatch.console import make_console, print_json, print_patches, series_as_json
from glmpatch.patching.series import Series


@click.command()
@series_options
@json_option
def command(*, series: Series, as_json: bool) -> None:
    """List the patches: what each does, why, and when it can go."""
    if as_json:
        print_json(series_as_json(series))
    else:
        print_patches(make_console(), series)
