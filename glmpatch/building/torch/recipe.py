"""The recipe: what each version of PyTorch needs to be built, as `build/torch.toml` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from glmpatch.assets import asset_folder
from glmpatch.errors import UsageError

# What it is built with, and what it needs when it runs: the names of keys and of lists.
KINDS = ("requires", "needs")

# What sums of them can be made of.
_LEAST_GB, _MOST_GB = 1e-6, 1e9


def _require_text(*texts: str) -> None:
    """Raise a `ValueError` for what no program can be given."""
    for text in texts:
        if "\0" in text:
            raise ValueError(f"{text!r} holds a NUL")


def _require_variables(environment: dict[str, str]) -> None:
    """Raise a `ValueError` for what is no variable."""
    for name in environment:
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(f"{name!r} is no name of a variable")
    _require_text(*environment.values())


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
    disk_gb: float
    job_gb: float
    requires: list[str]
    needs: list[str]
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Raise a `ValueError` for what cannot be built with."""
        for size in (self.disk_gb, self.job_gb):
            if not _LEAST_GB <= size <= _MOST_GB:
                raise ValueError(f"{size:g} GB are not from {_LEAST_GB:g} to {_MOST_GB:g}")
        _require_text(self.tag)
        _require_variables(self.environment)
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

    def __post_init__(self) -> None:
        """Raise a `ValueError` for what cannot be built with."""
        if not self.url:
            raise ValueError("the url is empty")
        _require_text(self.url, *self.configure, *self.build, *self.wheel)
        _require_variables(self.environment)
        for name in self.versions:
            Version(name)

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
        UsageError: There is no such list, or it is none.
    """
    file = lock_file(recipe, version, kind)
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: {error}") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="glmpatch update-recipe writes it") from error
