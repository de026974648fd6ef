"""The patches on real files of ChatGLM-6B, as a package of the Python package index carries them."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import PurePosixPath

import pytest

from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Options
from glmpatch.patching.plan import Plan, State, make_plan
from glmpatch.patching.series import load_series

pytestmark = pytest.mark.download

PACKAGE = "chatglm6bpkg==0.0.1"
SHA256 = "bf665ec91db5b13cb97dd29f8ea2ffe3d4cc8a207c1cb61d1fb9793bc2e476dc"
PYTHON_PATCHES = ("process-group", "precision", "frozen-broadcast", "cpu-autocast", "checkpoint-resume", "cpu-demos")


class Files:
    """A tree in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def paths(self) -> list[str]:
        return list(self.files)

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The Python files of the package, read from the wheel: it is never installed, its names would be at the top."""
    folder = tmp_path_factory.mktemp("published")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = folder.iterdir()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(wheel) as archive:
        return Files({name: archive.read(name) for name in archive.namelist() if PurePosixPath(name).suffix == ".py"})


@pytest.fixture(scope="module")
def plan(published: Files) -> Plan:
    return make_plan(load_series(Options()).select(only=PYTHON_PATCHES), published)


def test_all_patches_of_python_files_apply(plan: Plan) -> None:
    assert not plan.conflicts
    states = {result.patch.id: result.state for result in plan.patches}
    assert states.pop("cpu-autocast") is State.APPLIED
    assert set(states.values()) == {State.PENDING}, states


def test_again_changes_nothing(plan: Plan, published: Files) -> None:
    again = make_plan(load_series(Options()).select(only=PYTHON_PATCHES), Files({**published.files, **plan.after}))
    assert not again.after
    assert all(isinstance(edit.outcome, AlreadyDone) for edit in again.edits)


def test_only_these_lines_change(plan: Plan) -> None:
    before, after = plan.before["ptuning/main.py"], plan.after["ptuning/main.py"]
    lines = unified_diff(before.decode().splitlines(), after.decode().splitlines(), n=0, lineterm="")
    changes = [line for line in lines if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))]
    assert [line.replace(" ", "") for line in changes if line.startswith("-")] == ["-model=model.half()"] * 2
    assert len(changes) == 14, changes
    call = next(
        node
        for function in ast.walk(ast.parse(after))
        if isinstance(function, ast.FunctionDef) and function.name == "ptuning"
        for node in ast.walk(function.body[0])
        if isinstance(node, ast.Call)
    )
    assert ast.unparse(call) == "dist.init_process_group(backend='mpi')"


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # upstream has some
def test_every_result_is_python(plan: Plan) -> None:
    for data in plan.after.values():
        ast.parse(data)


@pytest.mark.parametrize("path", ["ptuning/main.py", "ptuning/trainer.py", "web_demo.py"])
def test_line_endings_and_a_byte_order_mark_survive(published: Files, path: str) -> None:
    series = load_series(Options()).select(only=PYTHON_PATCHES)
    dressed = b"\xef\xbb\xbf" + published.files[path].replace(b"\n", b"\r\n")
    files = {**published.files, path: dressed}
    outcome = make_plan(series, Files(files)).after[path]
    plain = make_plan(series, published).after[path]
    assert outcome == b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")


def test_a_cast_in_another_shape_is_a_conflict_with_its_line(published: Files) -> None:
    """The near miss on real code: the same main.py, but the cast is in a loop over the parameters."""
    main = published.files["ptuning/main.py"].replace(
        b"model = model.half()", b"for parameter in model.parameters(): parameter.half()"
    )
    outcomes = [
        edit.outcome
        for edit in make_plan(
            load_series(Options()).select(only=["process-group", "precision"]),
            Files({**published.files, "ptuning/main.py": main}),
        ).edits
    ]
    assert isinstance(outcomes[0], Changed)
    assert isinstance(outcomes[1], Conflict)
    # The line of the file as it is, not as process-group would leave it.
    assert outcomes[1].line == main[: main.index(b"parameter.half()")].count(b"\n") + 1
