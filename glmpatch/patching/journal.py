"""What was changed without a commit, so that it can be undone: one file a run, kept out of upstream's way.

This is no state of the patches (a plan finds that in the code), only the bytes that a revert gives back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Protocol

import msgspec

from glmpatch.errors import TreeError
from glmpatch.patching.tree import write_own_file, writing


class Change(msgspec.Struct, frozen=True):
    """The bytes of one file before and after one run."""

    before: bytes
    after: bytes


Layer = Mapping[str, Change]


class Merge(Protocol):
    """A three-way merge of the bytes of one file."""

    def __call__(self, current: bytes, base: bytes, other: bytes) -> bytes | None:
        """`current` with the way from `base` to `other` gone, or None where the changes meet."""


class Journal:
    """The layers of a folder, each a file in `folder`. The folder is made when it is needed.

    Raises:
        TreeError: `folder` is a link: upstream could have put it there, to make us write elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        if folder.is_symlink():
            raise TreeError(f"{folder} is a symbolic link", hint="remove it: what revert needs is kept there")
        self._folder = folder

    def layers(self) -> list[Layer]:
        """All layers, the newest first.

        Raises:
            TreeError: A layer cannot be read.
        """
        layers: list[Layer] = []
        for file in reversed(self._files()):
            try:
                layers.append(msgspec.json.decode(file.read_bytes(), type=dict[str, Change]))
            except (OSError, msgspec.DecodeError) as error:
                raise TreeError(f"{file}: {error}", hint="put the files back by hand and delete it") from error
        return layers

    def push(self, layer: Layer) -> None:
        """Keep a layer, before its files are written. The same one again, after a run that was killed, is kept once.

        Raises:
            EnvironmentLacksError: The folder cannot be written.
        """
        top = next(iter(self.layers()), {})
        if all(top.get(path) == change for path, change in layer.items()):
            return
        files = self._files()
        number = int(files[-1].stem) + 1 if files else 1
        write_own_file(self._folder / f"{number:04}.json", msgspec.json.encode(dict(layer)))

    def clear(self) -> None:
        """Forget all layers, the newest first: killed in between, those that are left are taken back already.

        Raises:
            EnvironmentLacksError: The folder cannot be written.
        """
        for file in reversed(self._files()):
            with writing(file):
                file.unlink()
        rmtree(self._folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{'[0-9]' * 4}.json"))


def undo(files: Mapping[str, bytes | None], layers: Sequence[Layer], merge: Merge) -> dict[str, bytes]:
    """Take the layers back, the newest first, keeping what was changed since.

    Args:
        files: The bytes of every file in `layers` as they are now; None for a file that is gone.
        layers: What to take back.
        merge: How to take a change back from a file that was changed since.

    Returns:
        The files whose bytes change.

    Raises:
        TreeError: A file is gone, or was changed since in the very same lines. Names all such files.
    """
    undone: dict[str, bytes] = {}
    lost: list[str] = []
    for path, current in files.items():
        data = _undo_file(current, [layer[path] for layer in layers if path in layer], merge)
        if data is None:
            lost.append(path)
        elif data != current:
            undone[path] = data
    if lost:
        raise TreeError(
            "these files are gone, or were changed since in the same lines: " + ", ".join(lost),
            hint="put your changes aside (git stash, or a copy), revert, and bring them back",
        )
    return undone


def _undo_file(current: bytes | None, changes: Sequence[Change], merge: Merge) -> bytes | None:
    for number, change in enumerate(changes):
        if current is None:
            return None
        # The bytes that this change or an older one started from: it is taken back already, by the user or by a run
        # that was killed.
        if any(current == older.before for older in changes[number:]):
            continue
        current = change.before if current == change.after else merge(current, change.after, change.before)
    return current
