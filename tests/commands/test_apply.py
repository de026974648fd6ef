from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from glmpatch.commands import apply
from glmpatch.errors import EnvironmentLacksError, ExitCode
from glmpatch.launching import in_tree
from glmpatch.launching.script import render_script
from tests.commands.conftest import Result, Run
from tests.engine_support import CHANGED
from tests.git_support import UPSTREAM, git, make_folder, make_repo, snapshot, status, subjects


def test_it_clones_and_patches(root: Path, glmpatch: Run) -> None:
    result = glmpatch("apply", root)
    assert result.code == ExitCode.DONE
    assert subjects(root) == ["Do dtype", "Do backend", "upstream"]
    lines = result.out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["patch", "state"],
        ["backend", "applied"],
        ["dtype", "applied"],
    ]
    assert lines[1].split()[2] == git(root, "rev-parse", "HEAD~1")[:10]
    assert lines[-3] == "left alone: ptuning/ds_train_finetune.sh ([GPU])"
    assert lines[-2].startswith("launch script: ptuning/launch_cpu.sh is written: ")
    assert lines[-1] == f"4 files changed in 2 commits; to undo: glmpatch revert {root}"
    again = glmpatch("apply", root)
    assert (again.code, again.out.splitlines()[-1]) == (ExitCode.DONE, "nothing to do: every patch is applied")
    assert len(subjects(root)) == 3


def test_the_last_line_can_be_typed(tmp_path: Path, glmpatch: Run) -> None:
    root = tmp_path / ("long" * 40) / "with 'blanks' in it"
    last = glmpatch("apply", root).out.splitlines()[-1]
    assert shlex.split(last.partition("to undo: ")[2]) == ["glmpatch", "revert", str(root)]


def test_a_relative_target(tmp_path: Path, glmpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert glmpatch("apply", "./a/ChatGLM-6B").code == ExitCode.DONE
    assert len(subjects(tmp_path / "a/ChatGLM-6B")) == 3


def test_another_upstream_and_ref(tmp_path: Path, root: Path, glmpatch: Run) -> None:
    other = make_repo(tmp_path / "other")
    git(other, "tag", "v9")
    assert glmpatch("apply", root, "--upstream", other, "--ref", "v9").code == ExitCode.DONE
    assert git(root, "remote", "get-url", "origin") == str(other)
    again = glmpatch("apply", root, "--upstream", other)
    assert again.out.startswith(f"note: {root} exists and is patched as it is")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--upstream", "ext::sh -c x"], ExitCode.USAGE, "is not a URL that upstream is cloned from"),
        (["--upstream=-u./evil"], ExitCode.USAGE, "is not a URL"),
        (["--upstream=--upload-pack=x"], ExitCode.USAGE, "is not a URL"),
        (["--ref=--upload-pack=x"], ExitCode.USAGE, "is not a commit, branch or tag"),
        (["--ref", "nowhere"], ExitCode.USAGE, "has no commit, branch or tag 'nowhere'"),
        (["--upstream", "/nowhere"], ExitCode.ENVIRONMENT, "cannot fetch /nowhere"),
        (["--only", "x"], ExitCode.USAGE, "no patch is called 'x'"),
        (["--skip", "backend", "--skip", "dtype"], ExitCode.USAGE, "leaves no patch"),
        (["--dtype", "fp16"], ExitCode.USAGE, "'fp16' is not one of"),
        (["--backend", "nccl"], ExitCode.USAGE, "'nccl' is not one of"),
        (["--patches", "/nowhere"], ExitCode.USAGE, "does not exist"),
        (["--colour"], ExitCode.USAGE, "No such option"),
    ],
)
def test_what_is_wrong_leaves_nothing(
    tmp_path: Path, glmpatch: Run, arguments: list[str], code: ExitCode, message: str
) -> None:
    result = glmpatch("apply", tmp_path / "a/b", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert not (tmp_path / "a").exists()


def test_another_repository_is_refused(tmp_path: Path, root: Path, glmpatch: Run) -> None:
    other = make_repo(tmp_path / "other", {"README.md": b"other\n"})
    result = glmpatch("apply", root, "--upstream", other, "--ref", "main")
    assert result.code == ExitCode.USAGE
    assert "is not ChatGLM-6B: it has no ptuning/main.py, no ptuning/train.sh" in result.err
    assert not root.exists()


def test_a_foreign_folder_and_a_file_are_refused(tmp_path: Path, glmpatch: Run) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine\n")
    for target in (tmp_path / "mine", tmp_path / "mine/thesis.txt"):
        assert glmpatch("apply", target).code == ExitCode.USAGE
    assert snapshot(tmp_path / "mine") == {"thesis.txt": ("-rw-r--r--", b"mine\n")}


def test_a_dirty_tree(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    (root / "README.md").write_text("mine\n")
    refused = glmpatch("apply", root)
    assert refused.code == ExitCode.CONFLICT
    assert refused.err.splitlines() == [
        f"error: {root} has uncommitted changes:",
        "    README.md",
        "hint: commit or stash them, or use --allow-dirty or --no-commit",
    ]
    assert glmpatch("apply", root, "--allow-dirty", "--only", "dtype").code == ExitCode.DONE
    assert glmpatch("apply", root, "--no-commit").code == ExitCode.DONE
    assert subjects(root) == ["Do dtype", "upstream"]


def test_a_dry_run_writes_nothing(tmp_path: Path, root: Path, glmpatch: Run) -> None:
    result = glmpatch("apply", root, "--dry-run")
    assert result.code == ExitCode.DONE
    assert result.out.splitlines()[-1] == "a dry run: 4 files would change"
    assert [line.split()[1] for line in result.out.splitlines()[1:3]] == ["to", "to"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patches", "source"]
    before = snapshot(make_folder(root))
    glmpatch("apply", root, "--dry-run")
    assert snapshot(root) == before


def test_a_conflict(root: Path, glmpatch: Run) -> None:
    make_repo(root, {**UPSTREAM, "ptuning/main.py": b"def main():\n    x\x1b[31m[bold]:key:\n"})
    result = glmpatch("apply", root)
    assert result.code == ExitCode.CONFLICT
    assert result.out.splitlines()[-1].endswith("conflicts: nothing was written")
    assert "conflict: ptuning/main.py:1 (swap)" in result.out
    assert "  expected: nccl\n  found:    no such text\n  hint:     look for it\n" in result.out
    assert status(root) == []


def test_an_environment_without_an_mpi_backend(root: Path, glmpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "find_spec", lambda _name: None)
    note = glmpatch("apply", root).out.splitlines()[-2]
    assert note.startswith("note: the patched code talks through MPI, and unless torch was built with MPI, ")
    assert note.endswith("glmpatch build-backend --mpi intel")
    assert glmpatch("apply", root, "--json").json["lacks_mpi_backend"] is True
    assert "note:" not in glmpatch("apply", root, "--backend", "gloo").out


def test_json(root: Path, glmpatch: Run) -> None:
    result = glmpatch("apply", root, "--json")
    assert (result.code, result.err) == (ExitCode.DONE, "")
    report = result.json
    assert sorted(report) == [
        *("clean", "commits", "lacks_mpi_backend", "launch_script", "out_of_scope", "patches", "written")
    ]
    assert report["clean"] is True
    assert report["launch_script"] == "written"
    assert report["commits"]["dtype"] == git(root, "rev-parse", "HEAD")
    assert sorted(report["written"]) == CHANGED
    assert report["out_of_scope"] == [{"path": "ptuning/ds_train_finetune.sh", "why": "[GPU]"}]
    first = report["patches"][0]
    assert sorted(first) == ["edits", "id", "state", "title"]
    assert (first["id"], first["state"]) == ("backend", "to apply")
    assert first["edits"][0] == {
        "path": "ptuning/main.py",
        "transform": "swap",
        "outcome": "changed",
        "notices": [],
    }


def test_json_of_a_conflict(root: Path, glmpatch: Run) -> None:
    make_folder(root, {**UPSTREAM, "ptuning/main.py": b"\n"})
    result = glmpatch("apply", root, "--json")
    assert result.code == ExitCode.CONFLICT
    assert (result.json["clean"], result.json["written"], result.json["launch_script"]) == (False, [], None)
    assert result.json["patches"][0]["edits"][0]["conflict"] == {
        "expected": "nccl",
        "found": "no such text",
        "hint": "look for it",
        "line": 1,
    }


def told(result: Result) -> str:
    """What apply says of the launch script."""
    (line,) = (line for line in result.out.splitlines() if line.startswith("launch script: "))
    return line.removeprefix("launch script: ptuning/launch_cpu.sh ")


def test_the_launch_script_is_there_and_git_does_not_see_it(root: Path, glmpatch: Run) -> None:
    make_repo(root)
    exclude = root / ".git/info/exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_bytes(b"*.orig")
    assert told(glmpatch("apply", root)).startswith("is written: ")
    script = root / "ptuning/launch_cpu.sh"
    assert script.stat().st_mode & 0o777 == 0o755
    assert subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout.startswith("Starts ")
    assert exclude.read_bytes() == b"*.orig\n/ptuning/launch_cpu.sh\n"
    assert status(root) == []
    assert "launch_cpu" not in git(root, "log", "--name-only")
    assert told(glmpatch("apply", root)).startswith("is up to date: ")
    assert exclude.read_bytes().count(b"launch_cpu") == 1


def test_the_launch_script_of_a_linked_worktree(tmp_path: Path, root: Path, glmpatch: Run) -> None:
    git(make_repo(root), "worktree", "add", "--quiet", str(tmp_path / "linked"))
    assert told(glmpatch("apply", tmp_path / "linked")).startswith("is written: ")
    assert status(tmp_path / "linked") == []


def test_a_launch_script_of_an_older_apply_is_renewed(root: Path, glmpatch: Run) -> None:
    make_folder(root)
    plan = in_tree.plan_for_here()
    older = render_script(replace(plan, python_folder=Path("/old")))
    assert in_tree.write_into_tree(root, replace(plan, python_folder=Path("/old"))) is in_tree.ScriptState.WRITTEN
    assert told(glmpatch("apply", root, "--dry-run")).startswith("would be written: ")
    assert (root / in_tree.SCRIPT).read_bytes() == older
    assert told(glmpatch("apply", root)).startswith("is written: ")
    assert (root / in_tree.SCRIPT).read_bytes() != older


@pytest.mark.parametrize("kind", ["changed", "own", "of launch", "link", "folder"])
def test_a_launch_script_of_the_user_is_left_alone(tmp_path: Path, root: Path, glmpatch: Run, kind: str) -> None:
    make_folder(root)
    script = root / "ptuning/launch_cpu.sh"
    if kind == "changed":
        glmpatch("apply", root)
        script.write_text(script.read_text().replace("RANKS=", "RANKS=9"))
    elif kind == "own":
        script.write_text("mine\n")
    elif kind == "of launch":
        glmpatch("launch", "--mpi", "intel", "--topology", "max9462-cache", "-o", script)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text("mine\n")
        script.symlink_to(tmp_path / "elsewhere")
    else:
        script.mkdir()
    before = snapshot(script.parent)[script.name] if kind != "folder" else None
    assert told(glmpatch("apply", root)) == "is left alone: apply did not write it, or it was changed since"
    assert before is None or snapshot(script.parent)[script.name] == before


def test_no_launch_script_if_not_wanted_or_not_patched(root: Path, glmpatch: Run) -> None:
    make_folder(root)
    result = glmpatch("apply", root, "--no-launch")
    assert result.code == ExitCode.DONE
    assert "launch script" not in result.out
    (root / "ptuning/main.py").write_text("\n")
    assert glmpatch("apply", root).code == ExitCode.CONFLICT
    assert not (root / "ptuning/launch_cpu.sh").exists()


def test_a_machine_that_cannot_have_a_launch_script(root: Path, glmpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(root)

    def refuse(_what: None) -> NoReturn:
        raise EnvironmentLacksError("nothing tells which CPUs this machine has")

    monkeypatch.setattr(in_tree, "read_topology", refuse)
    result = glmpatch("apply", root)
    assert result.code == ExitCode.DONE
    assert told(result) == "is not written: nothing tells which CPUs this machine has"
    assert glmpatch("apply", root, "--json").json["launch_script"] is None


@pytest.mark.parametrize("name", ["apply", "diff", "status", "patches"])
def test_patches_of_the_user(tmp_path: Path, root: Path, glmpatch: Run, name: str) -> None:
    make_folder(root)
    own = tmp_path / "own"
    own.mkdir()
    text = 'id = "mine"\ntitle = "t"\nwhy = "w"\ndrop_when = "d"\n[[edits]]\npath = "api.py"\ntransform = "swap"\n'
    (own / "mine.toml").write_text(f'{text}[edits.params]\nold = "load"\nnew = "mine"\n')
    target = [] if name == "patches" else [root]
    result = glmpatch(name, *target, "--patches", own)
    assert result.code == ExitCode.DONE
    assert "mine" in result.out
    (own / "mine.toml").write_text(text)
    wrong = glmpatch(name, *target, "--patches", own)
    assert wrong.code == ExitCode.USAGE
    assert wrong.err.startswith(f"error: {own / 'mine.toml'}: edits[0]: params of swap")
