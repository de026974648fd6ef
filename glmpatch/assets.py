"""Finds the data folders (patches, templates, build), in an installed wheel and in a checkout."""

from pathlib import Path

from glmpatch.errors import EnvironmentLacksError

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
