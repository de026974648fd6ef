from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from glmpatch.errors import ExitCode
from tests.commands.conftest import Run
from tests.git_support import make_repo, snapshot


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without PyTorch, which takes seconds to import."""
    monkeypatch.setitem(sys.modules, "torch", None)


def test_the_table(glmpatch: Run) -> None:
    result = glmpatch("doctor")
    assert result.code == ExitCode.CONFLICT
    lines = result.out.splitlines()
    assert any(line.split()[:2] == ["fail", "PyTorch"] for line in lines)
    at = lines.index("fail  PyTorch:")
    assert lines[at + 1].endswith(" -m pip install torch")
    assert "in 20 checks" in lines[-1]


def test_a_tree_and_json(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    before = snapshot(root)
    result = glmpatch("doctor", root, "--json")
    assert snapshot(root) == before
    assert result.code == ExitCode.CONFLICT
    rows = {row["id"]: row for row in result.json}
    assert len(rows) == 22
    assert all(sorted(row) == ["evidence", "id", "mend", "state", "title"] for row in rows.values())
    assert rows["tree"]["state"] == "fail"
    assert rows["tree"]["mend"].startswith(f"glmpatch apply {root}")
    assert rows["launch-script"]["state"] == "warn"
    glmpatch("apply", root, "--no-launch")
    assert {row["id"]: row["state"] for row in glmpatch("doctor", root, "--json").json}["tree"] == "pass"


def test_a_folder_of_something_else(tmp_path: Path, glmpatch: Run) -> None:
    (tmp_path / "file").touch()
    result = glmpatch("doctor", tmp_path)
    assert result.code == ExitCode.USAGE
    assert "is not ChatGLM-6B" in result.err


def test_another_model(tmp_path: Path, glmpatch: Run) -> None:
    config = tmp_path / "config.json"
    tiny = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "inner_hidden_size": 256, "vocab_size": 1000}
    config.write_text(json.dumps(tiny))
    result = glmpatch("doctor", "--model-config", config, "--json")
    (memory,) = (row for row in result.json if row["id"] == "memory")
    assert " MB" in memory["evidence"] or "1.0 GB" in memory["evidence"]
    config.write_text("[]")
    assert glmpatch("doctor", "--model-config", config).code == ExitCode.USAGE
