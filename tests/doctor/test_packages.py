from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from glmpatch.doctor import packages as module
from glmpatch.doctor.packages import packages, python, train_requirements
from glmpatch.doctor.row import State
from tests.doctor.support import is_fine

MARKER = "; python_version < '3.12' and extra == 'train'"
HERE = "; extra == 'train'"


def install(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which nothing is installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_the_needs_are_those_of_the_metadata(site: Path) -> None:
    wanted = [f"transformers==4.28.0{MARKER}", f"numpy<2{MARKER}"]
    others = ["click>=8", "tomli>=2; python_version < '3.11'", "pytest; extra == 'dev'"]
    install(site, "glmpatch", "1", [*wanted, *others])
    assert [each.name for each in train_requirements()] == ["transformers", "numpy"]


def test_this_glmpatch_has_needs() -> None:
    names = {each.name for each in train_requirements()}
    assert {"torch", "transformers", "accelerate", "datasets"} <= names
    assert "click" not in names


def test_python() -> None:
    needs = [Requirement(f"numpy<2{MARKER}")]
    assert is_fine(python(needs, "3.10.1"))
    assert is_fine(python(needs, "3.11.9"))
    row = python(needs, "3.12.0")
    assert row.state is State.FAIL
    assert "3.10 and 3.11" in row.evidence
    assert row.mend == "python3.11 -m venv .venv && .venv/bin/pip install 'numpy<2'"


def test_versions_that_do_not_go_together(site: Path) -> None:
    needs = [Requirement(f"{need}{HERE}") for need in ("torch>=2.0.1", "numpy<2", "datasets<3", "jieba")]
    for name, version in {"torch": "2.6.0a0+git1", "numpy": "2.1.0", "jieba": "0.42"}.items():
        install(site, name, version)
    row = packages(needs)
    assert row.state is State.FAIL
    assert row.evidence == "numpy is 2.1.0, needed is <2; datasets is not installed"
    assert row.mend.endswith(" -m pip install 'numpy<2' 'datasets<3'")
    # As if that were typed.
    (site / "numpy-2.1.0.dist-info").rename(site / "gone")
    install(site, "numpy", "1.26.4")
    install(site, "datasets", "2.21.0")
    row = packages(needs)
    assert is_fine(row)
    assert row.evidence == "torch 2.6.0a0+git1, numpy 1.26.4, and 2 others as needed"


def test_no_package_is_for_this_python() -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    row = packages([Requirement(f"numpy<2; python_version != '{here}' and extra == 'train'")])
    assert row.state is State.FAIL
    assert "-m venv" in row.mend


def test_glmpatch_is_not_installed(site: Path) -> None:
    assert site.is_dir()
    assert train_requirements() == []
    row = packages([])
    assert row.state is State.WARN
    assert re.search(r"pip install -e .*\[train\]", row.mend)
    assert Path(module.__file__).parents[2].name in row.mend
    assert is_fine(python([], "3.14.0"))
