"""The command line on a series of our own and an upstream of our own, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glmpatch.cli import run
from glmpatch.commands import apply
from glmpatch.patching import series, transforms
from tests.engine_support import SERIES, Swap
from tests.git_support import make_repo

UPSTREAM_TOML = """\
url = "{url}"
commit = "{commit}"
marks = ["ptuning/main.py", "ptuning/train.sh"]
[[out_of_scope]]
path = "ptuning/ds_train_finetune.sh"
why = "[GPU]"
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


def patch_file(name: str) -> str:
    """A patch of `SERIES` as a file."""
    (patch,) = (patch for patch in SERIES.patches if patch.id == name)
    lines = [f'id = "{name}"', f'title = "{patch.title}"', f'why = "{patch.why}"', f'drop_when = "{patch.drop_when}"']
    for edit in patch.edits:
        assert isinstance(edit.transform, Swap)
        lines += [
            "[[edits]]",
            f'path = "{edit.path}"',
            'transform = "swap"',
            f"optional = {str(edit.optional).lower()}",
        ]
        lines += ["[edits.params]", f'old = "{edit.transform.old}"', f'new = "{edit.transform.new}"']
    return "\n".join(lines)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The upstream that is pinned, in an installation whose patches are those of `SERIES`."""
    repo = make_repo(tmp_path / "source")
    patches = tmp_path / "patches"
    patches.mkdir()
    for number, patch in enumerate(SERIES.patches):
        (patches / f"{number}-{patch.id}.toml").write_text(patch_file(patch.id))
    (patches / "upstream.toml").write_text(UPSTREAM_TOML.format(url=repo, commit="main"))
    monkeypatch.setattr(series, "asset_folder", lambda _name: patches)
    monkeypatch.setattr(transforms, "TRANSFORMS", {"swap": Swap})
    # An environment with an MPI backend, whatever this one has.
    monkeypatch.setattr(apply, "find_spec", lambda _name: object())
    return repo


@pytest.fixture
def glmpatch(source: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line on these arguments."""
    assert source.exists()

    def run_it(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(code), out, err)

    return run_it
