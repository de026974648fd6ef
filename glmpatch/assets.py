"""Finds the data folders (patches, templates, build), in an installed wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glmpatch.errors import EnvironmentLacksError

if TYPE_CHECKING:
    import jinja2

_PACKAGE = Path(__file__).resolve().parent


def asset_folder(name: str) -> Path:
    """The folder `name` of the project's data.

    Raises:
        EnvironmentLacksError: The installation is incomplete.
    """
    candidates = [_PACKAGE / "_assets" / name, _PACKAGE.parent / name]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise EnvironmentLacksError(
        f"this installation of glmpatch lacks its folder {name!r} (looked in {looked})",
        hint="install glmpatch again",
    )


def shell_template(name: str) -> jinja2.Template:
    """The template of a shell script. It quotes nothing: what comes from the user must be quoted before.

    Raises:
        EnvironmentLacksError: The installation is incomplete.
    """
    import jinja2  # noqa: PLC0415 - 20 ms that few commands need

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(asset_folder("templates")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # Not the default, which is bash's for the length of an array.
        comment_start_string="<#",
        comment_end_string="#>",
        autoescape=False,  # noqa: S701 - a shell script
    )
    return environment.get_template(name)
