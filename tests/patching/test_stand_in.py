"""The whole series on the embedded stand-in for upstream, which needs no network."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from glmpatch.assets import asset_folder
from glmpatch.patching.apply import survey
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.plan import Plan, State
from glmpatch.patching.series import load_series

ROOT = asset_folder("templates") / "demo" / "upstream"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.fixture(scope="module", params=get_args(Dtype))
def plan(request: pytest.FixtureRequest) -> Plan:
    return survey(ROOT, load_series(Options(dtype=request.param)))


def test_every_patch_applies(plan: Plan) -> None:
    assert not plan.conflicts
    states = {result.patch.id: result.state for result in plan.patches}
    assert states.pop("cpu-autocast") is State.APPLIED
    assert set(states.values()) == {State.PENDING}, states


def test_every_result_is_what_its_name_says(plan: Plan, tmp_path: Path) -> None:
    scripts = {path: data for path, data in plan.after.items() if path.endswith(".sh")}
    assert len(scripts) == 4
    for path, data in scripts.items():
        file = tmp_path / Path(path).name
        file.write_bytes(data)
        subprocess.run([SHELLCHECK, "--shell=bash", file], check=True)
    for path, data in plan.after.items():
        if path.endswith(".py"):
            ast.parse(data)


@pytest.mark.parametrize("backend", get_args(Backend))
def test_the_script_asks_for_the_backend(backend: Backend) -> None:
    plan = survey(ROOT, load_series(Options(backend=backend)).select(only=["process-group"]))
    assert f'dist.init_process_group(backend="{backend}")'.encode() in plan.after["ptuning/main.py"]
