"""The whole history of the official repository, every refusal of it explained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.check import Selection, check_commits
from glmpatch.checking.heads import heads_to_check
from glmpatch.checking.history import read_history
from glmpatch.checking.model import Standing
from glmpatch.mirror import open_mirror
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.series import load_series, load_upstream

UPSTREAM = os.environ.get("GLMPATCH_UPSTREAM", "")
# The file, what stands in it, and why it is right to refuse that.
EXPLAINED = {
    ("web_demo3.py", ".quantize(8)"): "a quantised model needs the kernels for CUDA; gone with the next commit",
    ("web_demo2.py", "<<<<<<< HEAD"): "a merge that was committed with its conflict; mended by the next commit",
}

pytestmark = pytest.mark.skipif(not UPSTREAM, reason="GLMPATCH_UPSTREAM names no clone of the official repository")


@pytest.mark.parametrize(("backend", "dtype"), [("mpi", "bf16"), ("gloo", "fp32")])
def test_every_refusal_of_the_history_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend, dtype: Dtype
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pin = load_upstream()
    with open_mirror(UPSTREAM) as mirror:
        heads = heads_to_check(mirror, pin, (), may_lack_pin=False)
        selection = Selection(mirror.url, heads, whole_history=True)
        series = load_series(Options(backend, dtype))
        report = check_commits(read_history(mirror.objects, series, heads), selection, series, ResultCache(None))
    assert not report.has_drifted
    cells = [cell for tree in report.trees for cell in tree.patches]
    assert all(cell.standing is not Standing.WRONG for cell in cells)
    troubles = {(trouble.path, trouble.found) for cell in cells for trouble in cell.troubles}
    unexplained = {
        (path, found) for path, found in troubles if not any(path == file and part in found for file, part in EXPLAINED)
    }
    assert unexplained == set()
    assert len(troubles) == len(EXPLAINED)
    assert sum(cell.standing is Standing.CLEAN for cell in cells) > len(cells) / 2
