"""Where things are in the folder of a build of PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders in it.

    Attributes:
        root: The folder of the build.
    """

    root: Path

    @property
    def environment(self) -> Path:
        """The environment with what PyTorch is built with."""
        return self.root / "env"

    @property
    def source(self) -> Path:
        """The source tree."""
        return self.root / "source"

    @property
    def originals(self) -> Path:
        """The files of the source tree that are patched, as they were."""
        return self.root / "originals"

    @property
    def files(self) -> Path:
        """What the steps run and read."""
        return self.root / "files"

    @property
    def wheels(self) -> Path:
        """The folder of the wheel."""
        return self.root / "dist"

    @property
    def all(self) -> tuple[Path, ...]:
        """Everything that the steps make here."""
        return self.environment, self.source, self.originals, self.files, self.wheels
