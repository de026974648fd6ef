"""`glmpatch update-recipe`."""

from __future__ import annotations

from pathlib import Path

import click

from glmpatch.building.torch.recipe import load_recipe, recipe_file
from glmpatch.building.torch.update import update_version
from glmpatch.console import make_console, print_line


@click.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option(
    "--recipe", type=click.Path(dir_okay=False, path_type=Path), help="A recipe of your own. Default: build/torch.toml."
)
def command(*, versions: tuple[str, ...], recipe: Path | None) -> None:
    """Bring the recipe of build-torch up to date.

    Asks PyTorch's repository for the commits of the tags, and resolves what each version is built with, and needs, to
    exact versions with their hashes. A new version is a new table in the recipe, and this command.
    """
    console = make_console()
    file = recipe or recipe_file()
    loaded = load_recipe(file)
    chosen = [loaded.find(version)[0] for version in versions] or list(loaded.versions)
    for version in chosen:
        update = update_version(file, loaded, version, lambda text: print_line(console, f"* {text}"))
        print_line(console, f"torch {version}: {update.commit}" + (" (moved)" if update.moved else ""))
        for path in update.lists:
            print_line(console, f"  {path}")
