"""Reads patch files and upstream.toml into the model. All that is wrong with one is said with its path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from glmpatch.assets import asset_folder
from glmpatch.errors import UsageError
from glmpatch.patching.model import Edit, Options, Patch, Transform

T = TypeVar("T")


class _EditFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    transform: str
    params: dict[str, Any] = {}
    optional: bool = False


class _PatchFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # A trailer and the subject of a commit: each is one line, and not empty.
    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    title: Annotated[str, msgspec.Meta(pattern=r"^[^\r\n]+\Z")]
    why: str
    drop_when: str
    edits: list[_EditFile]


class OutOfScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of upstream that is left alone on purpose, and why."""

    path: str
    why: str


class UpstreamPin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where upstream is, and what is known of it.

    Attributes:
        url: Where to clone from.
        commit: The full hash of the commit that the patches were made for.
        marks: Paths that tell a tree of upstream from any other folder.
        out_of_scope: Files that are left alone on purpose.
    """

    url: str
    commit: str
    marks: list[str]
    out_of_scope: list[OutOfScope] = []

    def left_alone(self, root: Path) -> list[OutOfScope]:
        """The files out of scope that the tree in `root` has."""
        return [entry for entry in self.out_of_scope if (root / entry.path).is_file()]


@dataclass(frozen=True, slots=True)
class Series:
    """The patches to apply, in order."""

    patches: tuple[Patch, ...]

    def select(self, *, only: Iterable[str] = (), skip: Iterable[str] = ()) -> Series:
        """The patches named in `only` (all, when it is empty) without those in `skip`.

        Raises:
            UsageError: A name is not in the series, or no patch is left.
        """
        only, skip = tuple(only), tuple(skip)
        known = [patch.id for patch in self.patches]
        for name in (*only, *skip):
            if name not in known:
                raise UsageError(f"no patch is called {name!r}", hint=f"the patches are: {', '.join(known)}")
        chosen = tuple(patch for patch in self.patches if (not only or patch.id in only) and patch.id not in skip)
        if not chosen:
            raise UsageError("the selection leaves no patch", hint="loosen --only and --skip")
        return Series(chosen)


def pin_file() -> Path:
    """Where the pinned commit stands."""
    return asset_folder("patches") / "upstream.toml"


def load_upstream() -> UpstreamPin:
    """Read the pin file."""
    return _decode(pin_file(), UpstreamPin)


def load_series(options: Options, *, extra: Iterable[Path] = ()) -> Series:
    """Read the project's patches, then those of each folder in `extra`, each in the order of the file names.

    Raises:
        UsageError: A patch file is wrong, an id is used twice, or a folder holds no patch.
    """
    return _load((asset_folder("patches"), *extra), options)


def load_folder(folder: Path, options: Options) -> Series:
    """Read the patches of one folder alone, in the order of the file names.

    Raises:
        UsageError: A patch file is wrong, an id is used twice, or the folder holds no patch.
    """
    return _load((folder,), options)


def _load(folders: Iterable[Path], options: Options) -> Series:
    patches: list[Patch] = []
    for folder in folders:
        files = sorted(path for path in folder.glob("*.toml") if path.name != "upstream.toml")
        if not files:
            raise UsageError(f"{folder} holds no patch file (*.toml)")
        for file in files:
            patch = load_patch(file, options)
            if any(patch.id == other.id for other in patches):
                raise UsageError(f"{file}: the id {patch.id!r} is taken", hint="choose another id")
            patches.append(patch)
    return Series(tuple(patches))


def load_patch(file: Path, options: Options) -> Patch:
    """Read one patch file and fill the user's options in.

    Raises:
        UsageError: The file is not TOML, lacks or misspells a key, or names an unknown transform.
    """
    raw = _decode(file, _PatchFile)
    if not raw.edits:
        raise UsageError(f"{file}: a patch needs at least one edit")
    edits = tuple(_edit(file, number, edit, options) for number, edit in enumerate(raw.edits))
    return Patch(raw.id, raw.title, raw.why.strip(), raw.drop_when.strip(), edits)


def _edit(file: Path, number: int, edit: _EditFile, options: Options) -> Edit:
    # LibCST takes longer to import than most commands to run, and few of them read patches.
    from glmpatch.patching.transforms import TRANSFORMS  # noqa: PLC0415

    where = f"{file}: edits[{number}]"
    if edit.path.startswith("/") or ".." in edit.path.split("/"):
        raise UsageError(f"{where}: the path {edit.path!r} leads out of the tree")
    cls = TRANSFORMS.get(edit.transform)
    if cls is None:
        raise UsageError(
            f"{where}: no transform is called {edit.transform!r}",
            hint=f"the transforms are: {', '.join(sorted(TRANSFORMS))}",
        )
    try:
        transform: Transform = msgspec.convert(_fill(edit.params, options), cls)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: params of {edit.transform}: {error}") from error
    return Edit(edit.path, transform, edit.optional)


def _fill(params: dict[str, Any], options: Options) -> dict[str, Any]:
    """Put the options in the place of the values `"{backend}"` and `"{dtype}"`."""
    values = {f"{{{field}}}": getattr(options, field) for field in Options.__dataclass_fields__}
    return {name: values.get(value, value) if isinstance(value, str) else value for name, value in params.items()}


def _decode(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.toml.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
