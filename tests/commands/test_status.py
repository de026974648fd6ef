from __future__ import annotations

from pathlib import Path

from glmpatch.errors import ExitCode
from tests.commands.conftest import Run
from tests.git_support import UPSTREAM, make_folder, make_repo


def states(out: str) -> dict[str, str]:
    return {line.split()[0]: line for line in out.splitlines()[1:3]}


def test_before_and_after(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    before = glmpatch("status", root)
    assert before.code == ExitCode.DONE
    assert all("to apply" in line for line in states(before.out).values())
    glmpatch("apply", root, "--only", "dtype")
    after = states(glmpatch("status", root).out)
    assert "to apply" in after["backend"]
    assert "applied" in after["dtype"]
    assert "left alone" in before.out


def test_partly_applied_and_conflict(root: Path, glmpatch: Run) -> None:
    make_folder(root, {**UPSTREAM, "ptuning/train.sh": b"--no_cuda", "web_demo.py": b""})
    result = glmpatch("status", root)
    assert result.code == ExitCode.CONFLICT
    assert "partly applied" in states(result.out)["backend"]
    assert "conflict" in states(result.out)["dtype"]


def test_json(root: Path, glmpatch: Run) -> None:
    make_folder(root)
    result = glmpatch("status", root, "--json")
    assert sorted(result.json) == ["clean", "out_of_scope", "patches"]
    assert [patch["state"] for patch in result.json["patches"]] == ["to apply", "to apply"]
    assert result.json["patches"][1]["edits"][-1]["outcome"] == "absent"
