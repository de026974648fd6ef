from __future__ import annotations

import re

import pytest

from glmpatch.checking.model import Standing
from glmpatch.patching.model import Notice
from glmpatch.reporting.as_github import render
from tests.reporting.reports import NASTY, cell, clean_report, nasty_report, report, rich_report, tree, trouble

COMMAND = re.compile(r"::(error|warning|notice) ([^:\r\n]*)::([^\r\n]*)\n")


def test_errors_are_for_the_heads() -> None:
    said, first, second, *rest = render(rich_report()).splitlines()
    assert said.startswith("::error title=glmpatch check::Drift: 2 of 8 patches (precision, train-flags) do not fit")
    assert first == (
        "::error title=precision%3A conflict::"
        "ptuning/main.py:12 (main, pinned, 4 old commits (4000000000 to 7000000000))"
        "%0Aexpected: expected no such text%0Afound: found no such text%0Ahint: hint no such text"
        "%0Asince: 3000000000 2023-03-17 no such text"
    )
    assert second.startswith("::error title=train-flags%3A wrong result::ptuning/trainer.py (")
    assert [line.split(" ")[0] for line in rest] == ["::warning", "::warning", "::notice"]


def test_a_folder_is_annotated_at_its_files() -> None:
    conflict = cell(Standing.CONFLICT, trouble(), notices=(("train.sh", Notice("50% off")),))
    out = render(report(tree(0, "./fork, 1", folder=True, precision=conflict), upstream="fork"))
    assert "\n::error file=fork%2C 1/ptuning/main.py,line=12,title=precision%3A conflict::" in out
    assert "::warning file=fork%2C 1/train.sh,line=1,title=glmpatch check::50%25 off\n" in out


def test_a_clean_report_says_so() -> None:
    assert render(clean_report()) == "::notice title=glmpatch check::No drift: 8 patches fit main, dev.\n"


@pytest.mark.parametrize("folder", [False, True])
def test_no_text_becomes_a_command(folder: bool) -> None:
    out = render(nasty_report(folder=folder))
    assert COMMAND.sub("", out) == ""
    found = COMMAND.findall(out)
    assert [kind for kind, _, _ in found].count("error") == len(NASTY) + 1
    for _, properties, _ in found:
        assert {part.partition("=")[0] for part in properties.split(",")} <= {"file", "line", "title"}
