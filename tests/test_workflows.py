"""The scripts inside the workflow and the action, run for real; GitHub's own program is a stand-in that writes down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from glmpatch.assets import asset_folder
from glmpatch.errors import ExitCode

REPOSITORY = Path(__file__).parent.parent
UPSTREAM = REPOSITORY / ".github/workflows/upstream.yml"
ACTION = REPOSITORY / "action.yml"
# Lists the issues of the file `issues`; an empty one means that they are disabled. Writes down every call,
# and every file that it is to send.
GH = f"""\
#!{sys.executable}
import json, os, sys
import jq
arguments = sys.argv[1:]
with open("calls", "a") as calls:
    print(*arguments, file=calls)
values = dict(zip(arguments, arguments[1:]))
if "--body-file" in values:
    with open(values["--body-file"]) as body, open("sent", "a") as sent:
        sent.write(body.read())
with open("issues") as issues:
    text = issues.read()
if arguments[0] == "issue" and not text:
    sys.exit("the 'owner/repo' repository has disabled issues")
if arguments[:2] == ["api", "repos/owner/repo"]:
    text = json.dumps({{"has_issues": bool(text)}})
if "--jq" in values:
    print(*(json.dumps(each) for each in jq.compile(values["--jq"]).input_text(text).all()), sep="\\n")
"""
MENTION = '[{"number": 7, "title": "The patches no longer apply to upstream"}, {"number": 8, "title": "Other"}]'


def steps_of(file: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(file.read_text())
    steps = document["runs"]["steps"] if "runs" in document else document["jobs"]["check"]["steps"]
    assert isinstance(steps, list)
    return steps


def step(file: Path, name: str) -> dict[str, Any]:
    (found,) = (step for step in steps_of(file) if step.get("name") == name)
    return found


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub does."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def github(tmp_path: Path) -> dict[str, str]:
    """The variables that GitHub sets, and programs on PATH."""
    program(tmp_path / "bin/gh", GH)
    program(tmp_path / "bin/glmpatch", f'#!/bin/sh\nexec {sys.executable} -m glmpatch "$@"\n')
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "RUNNER_TEMP": str(tmp_path / "runner"),
    }


@pytest.mark.parametrize(
    ("code", "issues", "calls"),
    [
        ("0", "[]", []),
        ("0", MENTION, ["issue close 7 --comment The patches apply again: https://run"]),
        ("1", "[]", ["issue create --title The patches no longer apply to upstream --body-file report.md"]),
        ("1", MENTION, ["issue edit 7 --body-file report.md"]),
        ("", MENTION, []),
    ],
)
def test_one_issue_is_opened_updated_and_closed(
    tmp_path: Path, github: dict[str, str], code: str, issues: str, calls: list[str]
) -> None:
    tell = step(UPSTREAM, "Tell")
    (tmp_path / "issues").write_text(issues)
    (tmp_path / "report.md").write_text("the report\n")
    # GitHub takes a missing value for the number 0, but not for an empty text.
    assert "format('{0}', steps.check.outputs.code)" in tell["if"]
    done = run(
        tell["run"], tmp_path, **github, CODE=code, GH_REPO="owner/repo", RUN="https://run", TITLE=tell["env"]["TITLE"]
    )
    assert done.returncode == 0, done.stderr
    _, listed, *rest = (tmp_path / "calls").read_text().splitlines()
    assert listed.startswith("issue list --app github-actions --state open")
    assert rest == calls
    if code == "1":
        sent = (tmp_path / "sent").read_text()
        assert sent.startswith("the report\n")
        assert "(https://run)" in sent


@pytest.mark.parametrize("code", ["0", "1"])
def test_where_issues_are_disabled_the_drift_alone_fails(tmp_path: Path, github: dict[str, str], code: str) -> None:
    (tmp_path / "issues").touch()
    (tmp_path / "report.md").write_text("the report\n")
    tell = step(UPSTREAM, "Tell")
    done = run(tell["run"], tmp_path, **github, CODE=code, GH_REPO="owner/repo", RUN="x", TITLE=tell["env"]["TITLE"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("::warning::The patches no longer apply") is (code == "1")
    assert (tmp_path / "calls").read_text().splitlines() == ["api repos/owner/repo --jq .has_issues"]


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())


def test_the_check_leaves_its_reports_and_its_code(tmp_path: Path, github: dict[str, str]) -> None:
    """An upstream that is not there: GitHub is not to be had in a test, and drift is tested with the command."""
    check = step(UPSTREAM, "Check")["run"]
    offline = check.replace("glmpatch check", "glmpatch check --offline")
    assert offline != check
    done = run(offline, tmp_path, **github)
    assert done.returncode == ExitCode.ENVIRONMENT
    assert outputs(tmp_path) == {"code": "3"}
    assert not (tmp_path / "summary").exists()


@pytest.mark.parametrize(("broken", "skip"), [(False, ""), (True, ""), (True, "cpu-demos\ntrain-flags\n")])
def test_the_action_checks_a_fork(tmp_path: Path, github: dict[str, str], broken: bool, skip: str) -> None:
    fork = shutil.copytree(asset_folder("templates") / "demo/upstream", tmp_path / "my fork")
    if broken:
        (fork / "ptuning/train.sh").write_text("echo nothing\n")
    program(tmp_path / "runner/glmpatch/bin/glmpatch", (tmp_path / "bin/glmpatch").read_text())
    script = step(ACTION, "Check the patches")["run"]
    done = run(script, tmp_path, **github, FOLDER="my fork", SKIP=skip, BACKEND="gloo", DTYPE="fp32")
    drifted = broken and not skip
    assert done.returncode == (ExitCode.CONFLICT if drifted else ExitCode.DONE), done.stderr
    assert ("::error file=my fork/ptuning/train.sh" in done.stdout) is drifted
    assert (tmp_path / "summary").read_text()
    report = Path(outputs(tmp_path)["report"])
    assert report.read_text().lower().startswith("<!doctype html>")


def test_the_action_leaves_no_old_report_where_there_is_no_new_one(tmp_path: Path, github: dict[str, str]) -> None:
    fork = asset_folder("templates") / "demo/upstream"
    program(tmp_path / "runner/glmpatch/bin/glmpatch", (tmp_path / "bin/glmpatch").read_text())
    script = step(ACTION, "Check the patches")["run"]
    inputs = {"SKIP": "", "BACKEND": "mpi", "DTYPE": "bf16"}
    assert run(script, tmp_path, **github, **inputs, FOLDER=str(fork)).returncode == ExitCode.DONE
    for name in ("output", "summary"):
        (tmp_path / name).unlink()
    assert run(script, tmp_path, **github, **inputs, FOLDER="nowhere").returncode == ExitCode.USAGE
    assert not (tmp_path / "output").exists()
    assert not (tmp_path / "summary").exists()


def test_every_script_is_clean(tmp_path: Path) -> None:
    """Those of the workflows are seen by actionlint, which knows no actions."""
    for number, each in enumerate(steps_of(ACTION)):
        file = tmp_path / f"{number}.sh"
        file.write_text(each["run"])
        subprocess.run([Path(sys.executable).with_name("shellcheck"), "--shell=bash", file], check=True)


def test_no_expression_is_pasted_into_a_script() -> None:
    """A branch or a path of a fork could hold shell code: scripts get it in variables."""
    assert not [each for file in (UPSTREAM, ACTION) for each in steps_of(file) if "${{" in each.get("run", "")]
