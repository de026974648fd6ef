"""Every case in tests/patches: `before` becomes `after` under the patch of that name, and `after` stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.patching.model import AlreadyDone, Changed, Transform
from tests.support import all_patches

ROOT = Path(__file__).parents[1] / "patches"
SERIES = {patch.id: patch for patch in all_patches()}
CASES = sorted(path for path in ROOT.glob("*/*") if path.is_dir())


def transform_of(case: Path) -> Transform:
    return SERIES[case.parent.name].edits[0].transform


def read(case: Path, stem: str) -> bytes:
    (file,) = case.glob(f"{stem}.*")
    return file.read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_before_becomes_after(case: Path) -> None:
    before, after = read(case, "before"), read(case, "after")
    outcome = transform_of(case)(before)
    if before == after:
        assert isinstance(outcome, AlreadyDone)
    else:
        assert isinstance(outcome, Changed), outcome
        assert outcome.data.decode() == after.decode()
    assert isinstance(transform_of(case)(after), AlreadyDone)


def test_every_patch_has_a_case() -> None:
    assert {case.parent.name for case in CASES} == set(SERIES)
