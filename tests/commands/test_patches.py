from __future__ import annotations

from glmpatch.errors import ExitCode
from tests.commands.conftest import Run


def test_each_patch_with_its_reason(glmpatch: Run) -> None:
    result = glmpatch("patches")
    assert result.code == ExitCode.DONE
    assert result.out.splitlines()[:4] == [
        "backend  Do backend",
        "  ptuning/main.py, ptuning/train.sh",
        "Because of backend.",
        "Can go when: backend is done upstream",
    ]


def test_json(glmpatch: Run) -> None:
    (patch,) = glmpatch("patches", "--only", "dtype", "--json").json
    assert sorted(patch) == ["drop_when", "edits", "id", "title", "why"]
    assert patch["edits"][1] == {"path": "web_demo*.py", "transform": "swap", "optional": True}
