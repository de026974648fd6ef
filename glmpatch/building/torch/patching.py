"""Patches PyTorch's source with the patch engine: the series is the folder `patches/pytorch`."""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glmpatch.assets import asset_folder
from glmpatch.building.torch.options import TorchOptions
from glmpatch.building.torch.source import read_from_source
from glmpatch.errors import BuildFailedError
from glmpatch.patching.diff import unified_diff
from glmpatch.patching.model import Conflict, Options
from glmpatch.patching.plan import Plan, make_plan
from glmpatch.patching.series import Series, load_folder
from glmpatch.patching.syntax.cpp import CppFile
from glmpatch.patching.transforms import mpi_helpers
from glmpatch.patching.tree import WorkTree, write_files, write_own_file


def patch_source(tree: Path, originals: Path) -> None:
    """Patch a source tree. A patched file starts again from what it was, so that a changed patch does, too.

    Args:
        tree: The source.
        originals: Where the files are kept as they were.

    Raises:
        BuildFailedError: A file is not what a patch understands. Nothing is written then.
    """
    series = _series()
    for path in _paths(series):
        kept = originals / path
        if kept.is_file():
            shutil.copyfile(kept, tree / path)
    plan = _require_clean(make_plan(series, WorkTree(tree)))
    for path, data in plan.before.items():
        # Whole or not at all: a half file would be taken for the original.
        write_own_file(originals / path, data)
    write_files(tree, plan.after)


def patch_as_diff(options: TorchOptions) -> bytes:
    """What the patches change in the source that is to be built, as a unified diff.

    Raises:
        BuildFailedError: A file is not what a patch understands.
        EnvironmentLacksError: The source cannot be reached.
    """
    plan = _require_clean(make_plan(_series(), _Files(lambda path: read_from_source(options, path))))
    return b"".join(unified_diff(path, plan.before[path], after) for path, after in plan.after.items())


def patch_inputs() -> dict[str, Any]:
    """What decides what the patches make of a source: they and the code that carries them out."""
    transforms = {type(edit.transform) for patch in _series().patches for edit in patch.edits}
    # The code that is put into the source has a module of its own.
    code = {Path(inspect.getfile(kind)) for kind in (*transforms, CppFile)} | {Path(mpi_helpers.__file__)}
    data = (asset_folder("patches") / "pytorch").glob("*.toml")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (*code, *data)}


class _Files:
    """A tree of which only single files can be had."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self.read = read

    def paths(self) -> tuple[str, ...]:
        """None is listed: no patch of PyTorch has a glob."""
        return ()


def _series() -> Series:
    return load_folder(asset_folder("patches") / "pytorch", Options())


def _paths(series: Series) -> list[str]:
    return [edit.path for patch in series.patches for edit in patch.edits]


def _require_clean(plan: Plan) -> Plan:
    lines = []
    for result in plan.conflicts:
        outcome = result.outcome
        assert isinstance(outcome, Conflict)  # noqa: S101 - for mypy
        place = result.path if outcome.line is None else f"{result.path}:{outcome.line}"
        lines.append(f"{place}: expected {outcome.expected}, found {outcome.found}")
    if lines:
        raise BuildFailedError(
            "\n".join(["PyTorch's source is not what the patches understand:", *lines]),
            hint="name the version that this source is of with --torch-version",
        )
    return plan
