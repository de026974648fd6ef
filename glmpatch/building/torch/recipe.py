"""The recipe: what each version of PyTorch needs to be built, as `build/torch.toml` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from glmpatch.assets import asset_folder
from glmpatch.errors import UsageError

# What it is built with, and what it needs when it runs: the names of keys and of lists.
KINDS = ("requires", "needs")

_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class TorchVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of PyTorch.

    Attributes:
        tag: Its tag upstream.
        commit: The full hash of the commit that is built.
        python: The Pythons that it goes with, as a specifier.
        gcc: The versions of gcc that compile it, as a specifier.
        disk_gb: What source and build take on disk, in GB.
        job_gb: What one compiler takes of memory at its worst, in GB.
        requires: What it is built with, as requirements.
        needs: What it needs when it runs, as requirements.
        environment: What it is told beyond what all are.
    """

    tag: str
    commit: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]
    python: str
    gcc: str
    disk_gb: _Positive
    job_gb: _Positive
    requires: list[str]
    needs: list[str]
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Raise a `ValueError` for what is no specifier."""
        try:
            for specifier in (self.python, self.gcc):
                SpecifierSet(specifier)
        except InvalidSpecifier as error:
            raise ValueError(str(error)) from error


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How PyTorch is built.

    Attributes:
        url: Where its repository is.
        default: The version that is built where none is asked for.
        configure: The arguments of Python that configure a source tree.
        build: Those that compile it.
        wheel: Those that pack it; the folder for the wheel follows.
        environment: Variables of the build.
        versions: What there is.
    """

    url: str
    default: str
    configure: list[str]
    build: list[str]
    wheel: list[str]
    environment: dict[str, str]
    versions: dict[str, TorchVersion]

    def find(self, name: str | None) -> tuple[str, TorchVersion]:
        """A version by its name, or the default one.

        Raises:
            UsageError: It is not in the recipe.
        """
        chosen = name or self.default
        if chosen not in self.versions:
            raise UsageError(
                f"there is no recipe for torch {chosen}",
                hint=f"there is one for {', '.join(self.versions)}; --recipe takes one of your own",
            )
        return chosen, self.versions[chosen]


def recipe_file() -> Path:
    """Where the project's recipe is."""
    return asset_folder("build") / "torch.toml"


def load_recipe(file: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Recipe)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def lock_file(recipe: Path, version: str, kind: str) -> Path:
    """Where the exact versions and hashes of what a version `requires`, or `needs`, are: beside the recipe."""
    return recipe.parent / "constraints" / f"torch-{version}-{kind}.txt"


def locked_requirements(recipe: Path, version: str, kind: str) -> str:
    """The exact versions and hashes of what a version `requires`, or `needs`.

    Raises:
        UsageError: There is no such list.
    """
    file = lock_file(recipe, version, kind)
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="glmpatch update-recipe writes it") from error
