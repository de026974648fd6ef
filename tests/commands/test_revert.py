from __future__ import annotations

from pathlib import Path

from glmpatch.errors import ExitCode
from tests.commands.conftest import Run
from tests.engine_support import CHANGED
from tests.git_support import git, make_folder, make_repo, snapshot


def test_commits(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    glmpatch("apply", root)
    result = glmpatch("revert", root)
    assert result.code == ExitCode.DONE
    head = git(root, "rev-parse", "HEAD")[:10]
    assert sorted(result.out.splitlines()) == sorted(
        [
            *(f"reverted {path}" for path in CHANGED),
            f"in commit {head}: backend, dtype",
            "removed ptuning/launch_cpu.sh",
        ]
    )
    assert glmpatch("revert", root).out == "nothing to revert\n"


def test_a_folder(root: Path, glmpatch: Run) -> None:
    before = snapshot(make_folder(root))
    glmpatch("apply", root)
    result = glmpatch("revert", root, "--json")
    assert result.code == ExitCode.DONE
    assert sorted(result.json) == ["commit", "kept", "patches", "removed", "written"]
    assert (result.json["removed"], result.json["kept"]) == (["ptuning/launch_cpu.sh"], [])
    assert (sorted(result.json["written"]), result.json["patches"], result.json["commit"]) == (CHANGED, [], None)
    assert snapshot(root) == before


def test_a_launch_script_of_the_user_stays(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    glmpatch("apply", root)
    script = root / "ptuning/launch_cpu.sh"
    script.write_text(script.read_text() + "# mine\n")
    kept = "kept ptuning/launch_cpu.sh: apply did not write it, or it was changed since\n"
    out = glmpatch("revert", root).out
    assert out.endswith(kept)
    assert "removed" not in out
    assert script.exists()
    glmpatch("launch", "--mpi", "intel", "--topology", "max9462-cache", "--force", "-o", script)
    assert glmpatch("revert", root).out == f"{kept}nothing to revert\n"
    assert script.exists()


def test_the_same_lines(root: Path, glmpatch: Run) -> None:
    make_folder(root)
    glmpatch("apply", root)
    (root / "ptuning/main.py").write_text("mine\n")
    result = glmpatch("revert", root)
    assert result.code == ExitCode.CONFLICT
    assert "in the same lines: ptuning/main.py\nhint: " in result.err


def test_a_folder_that_is_not_upstream(tmp_path: Path, glmpatch: Run) -> None:
    assert glmpatch("revert", tmp_path).code == ExitCode.USAGE
