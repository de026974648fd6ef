from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from glmpatch.errors import ExitCode
from tests.commands.conftest import Run
from tests.engine_support import CHANGED
from tests.git_support import UPSTREAM, make_folder, make_repo, snapshot


@pytest.mark.parametrize("make", [make_folder, make_repo])
@pytest.mark.parametrize("shape", ["lf", "crlf", "no last newline"])
def test_git_apply_reads_it(tmp_path: Path, root: Path, glmpatch: Run, make: type, shape: str) -> None:
    files = dict(UPSTREAM)
    if shape == "crlf":
        files = {path: data.replace(b"\n", b"\r\n") for path, data in files.items()}
    elif shape == "no last newline":
        files = {path: data.removesuffix(b"\n") for path, data in files.items()}
    before = snapshot(make(root, files))
    result = glmpatch("diff", root)
    assert (result.code, result.err) == (ExitCode.DONE, "")
    assert snapshot(root) == before
    other = make_folder(tmp_path / "other", files)
    subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=other, input=result.out.encode(), check=True)
    glmpatch("apply", root, "--no-commit")
    after = snapshot(root)
    assert {path: after[path] for path in files} == snapshot(other)
    assert glmpatch("diff", root).out == ""


def test_conflicts_go_to_the_other_stream(root: Path, glmpatch: Run) -> None:
    make_folder(root, {**UPSTREAM, "ptuning/train.sh": b"\n"})
    result = glmpatch("diff", root)
    assert result.code == ExitCode.CONFLICT
    named = [line.removeprefix("+++ b/") for line in result.out.splitlines() if line.startswith("+++ ")]
    assert sorted(named) == [path for path in CHANGED if path != "ptuning/train.sh"]
    assert result.err.startswith("conflict: ptuning/train.sh:1 (swap)\n")


def test_a_folder_that_is_not_upstream(tmp_path: Path, glmpatch: Run) -> None:
    result = glmpatch("diff", tmp_path / "gone")
    assert result.code == ExitCode.USAGE
    assert "is not ChatGLM-6B" in result.err
