"""What the user may choose of a build of PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import platformdirs

from glmpatch.building.torch.layout import Layout
from glmpatch.building.torch.recipe import Recipe, load_recipe, recipe_file
from glmpatch.credentials import without_credentials
from glmpatch.errors import UsageError
from glmpatch.git_commands import safe_url
from glmpatch.mpi import FlavourId
from glmpatch.patching.tree import write_own_file
from glmpatch.process import stream

_FILE = "options.json"
_PATHS = ("work_dir", "prefix", "mpi_root", "source", "recipe")


class TorchChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. It is kept beside the build, so that `--status` knows what is being built.

    Attributes:
        flavour: The MPI.
        version: The version of PyTorch; None for the recipe's default.
        work_dir: Where source, build, logs and wheel are; None for a folder in the user's cache.
        prefix: The environment that it is installed into; None for that of this Python.
        mpi_root: Where the MPI is; None to look for it, and to install it into the prefix if there is none.
        source: A source tree, or a tarball of one; None to clone.
        sha256: What the tarball's checksum must be; None not to ask.
        jobs: Compilers to run at once; None for as many as memory allows.
        variables: Variables of PyTorch's build beyond the recipe's.
        url: Where to clone from; None for where the recipe says.
        recipe: A recipe of the user's own; None for the project's.
    """

    flavour: FlavourId
    version: str | None = None
    work_dir: Path | None = None
    prefix: Path | None = None
    mpi_root: Path | None = None
    source: Path | None = None
    sha256: str | None = None
    jobs: int | None = None
    variables: dict[str, str] = {}
    url: str | None = None
    recipe: Path | None = None


class TorchOptions:
    """The choices with all that follows from them. All paths are absolute.

    Args:
        choices: What was asked for.

    Raises:
        UsageError: The recipe cannot be read, or has no such version, or the URL is none, or holds a password.

    Attributes:
        recipe_file: The recipe's file.
        recipe: The recipe.
        version: The version of PyTorch.
        torch: What the recipe says of it.
        folder: Where source, build, logs and wheel are.
        prefix: The environment that it is installed into.
        base_python: The Python that makes that environment, if it is not there.
    """

    def __init__(self, choices: TorchChoices) -> None:
        if choices.url and without_credentials(choices.url) != choices.url:
            # It is in logs, in the plan and in the script.
            raise UsageError("--url holds a password", hint="let git find it: see git help credentials")
        given = {name: value for name in _PATHS if (value := getattr(choices, name)) is not None}
        self.choices = choices = msgspec.structs.replace(
            choices,
            url=choices.url and safe_url(choices.url),
            **{name: Path(os.path.abspath(path)) for name, path in given.items()},  # noqa: PTH100 - `..` goes, links stay
        )
        self.recipe_file: Path = choices.recipe or recipe_file()
        self.recipe: Recipe = load_recipe(self.recipe_file)
        self.version, self.torch = self.recipe.find(choices.version)
        self.folder = choices.work_dir or builds_folder() / f"{self.version}-{choices.flavour}"
        self.prefix = choices.prefix or Path(sys.prefix)
        self.base_python = Path(sys.executable)
        self._require_apart()

    @property
    def flavour(self) -> FlavourId:
        """The MPI."""
        return self.choices.flavour

    @property
    def full_version(self) -> str:
        """What the built PyTorch calls itself: `2.13.0+mpi.intel`."""
        return f"{self.version}+mpi.{self.flavour}"

    @property
    def mpi_root(self) -> Path | None:
        """Where the MPI is said to be."""
        return self.choices.mpi_root

    @property
    def source(self) -> Path | None:
        """The source tree or tarball to take."""
        return self.choices.source

    @property
    def origin(self) -> str:
        """Where to clone from."""
        return self.choices.url or safe_url(self.recipe.url)

    @property
    def python(self) -> Path:
        """The Python that PyTorch is built for, and that runs it."""
        return self.base_python if self.prefix == Path(sys.prefix) else self.prefix / "bin" / "python"

    def _require_apart(self) -> None:
        """See that what the user has is not where the build makes and removes its own."""
        ours = [path.resolve() for path in Layout(self.folder).all]
        for name in ("source", "prefix", "mpi_root", "recipe"):
            path = getattr(self.choices, name)
            if path and any(own in (path.resolve(), *path.resolve().parents) for own in ours):
                raise UsageError(
                    f"{path} is in the folder of the build", hint="it can be removed there: name another one"
                )
        if self.source and self.source.resolve() in (self.folder.resolve(), *self.folder.resolve().parents):
            raise UsageError(f"{self.folder} is in the source tree", hint="name another folder with --work-dir")

    def keep(self) -> None:
        """Write the choices beside the build."""
        write_own_file(self.folder / _FILE, msgspec.json.encode(self.choices, enc_hook=str))


def python_version(options: TorchOptions) -> str:
    """The version of the Python that PyTorch is built for: that of the prefix, or ours if that is still to be made."""
    python = options.python if options.python.exists() else options.base_python
    return "\n".join(stream([str(python), "--version"]))


def builds_folder() -> Path:
    """Where builds are by default, each in a folder of its own."""
    return platformdirs.user_cache_path("glmpatch") / "torch"


def kept_builds(work_dir: Path | None) -> Iterator[TorchOptions]:
    """The builds that there are: that in a folder, or all in the user's cache.

    Raises:
        UsageError: The recipe of one is gone, or what was kept of it is damaged.
    """
    folders = [work_dir] if work_dir else sorted(builds_folder().glob("*"))
    for folder in folders:
        file = folder / _FILE
        if file.is_file():
            try:
                choices = msgspec.json.decode(
                    file.read_bytes(), type=TorchChoices, dec_hook=lambda kind, text: kind(text)
                )
            except (UnicodeDecodeError, msgspec.DecodeError) as error:
                raise UsageError(f"{file}: {error}", hint="run the build again, which writes it anew") from error
            # It may have been moved.
            yield TorchOptions(msgspec.structs.replace(choices, work_dir=folder))
