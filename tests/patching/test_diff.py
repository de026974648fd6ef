from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glmpatch.patching.diff import unified_diff
from tests.git_support import git


def test_a_diff_looks_like_that_of_git() -> None:
    assert unified_diff("a b/c.py", b"1\n2\n3\n", b"1\n2\r\n3").decode() == (
        "diff --git a/a b/c.py b/a b/c.py\n--- a/a b/c.py\n+++ b/a b/c.py\n@@ -1,3 +1,3 @@\n"
        " 1\n-2\n-3\n+2\r\n+3\n\\ No newline at end of file\n"
    )


def test_no_change_is_no_diff() -> None:
    assert unified_diff("a", b"1\n", b"1\n") == b""


lines = st.lists(
    st.sampled_from(["a", "b", "\u4e2d", "\t-", "+", "\x0c", "\u2028", "\r", "\\ No newline"]).map(str.encode)
)
endings = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    text = b"".join(line + draw(endings) for line in draw(lines))
    return text.removesuffix(b"\n") if draw(st.booleans()) else text


@settings(max_examples=60)
@example(b"", b"a\n", "a.py")
@example(b"a", b"", "a.py")
@example(b"a\n", b"a", "a.py")
@given(files(), files(), st.sampled_from(["a.py", "a b.py", "\u6f14\u793a/a.py"]))
def test_git_apply_makes_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, name: str
) -> None:
    diff = unified_diff(name, before, after)
    if before == after:
        assert diff == b""
        return
    folder = tmp_path_factory.mktemp("tree")
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(before)
    subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], cwd=folder, input=diff, check=True)
    assert file.read_bytes() == after


def test_the_diffs_of_several_files_are_one_patch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_bytes(b"1\n")
    diff = b"".join(unified_diff(name, b"1\n", b"2\n") for name in ("a.py", "b.py"))
    (tmp_path / "patch").write_bytes(diff)
    git(tmp_path, "apply", "patch")
    assert [(tmp_path / name).read_bytes() for name in ("a.py", "b.py")] == [b"2\n", b"2\n"]
