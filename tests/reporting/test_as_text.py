from __future__ import annotations

import io
import re
from itertools import takewhile

import pytest
from rich.cells import cell_len
from rich.console import Console

from glmpatch.checking.model import Report
from glmpatch.reporting.as_text import print_report, render
from tests.reporting.reports import NASTY, clean_report, nasty_report, report, rich_report, tree


def lines(one: Report, width: int = 120) -> list[str]:
    file = io.StringIO()
    print_report(Console(file=file, width=width, highlight=False, emoji=False, color_system=None), one)
    return file.getvalue().splitlines()


def test_heads_are_told_in_words() -> None:
    text = render(clean_report())
    heading, row = text.splitlines()[1:3]
    ends = "requirements group precision broadcast flags autocast resume demos"
    assert heading.split() == ["tree", "date", "subject", *ends.split()]
    assert row.split()[:2] == ["main", "2023-03-23"]
    assert row.split().count("ok") == 8
    scope = "https://github.com/THUDM/ChatGLM-6B.git: 2 trees, 194 distinct files, 3 of them computed anew"
    assert text.splitlines()[-2:] == ["No drift: 8 patches fit main, dev.", scope]


def test_commits_alike_share_a_row() -> None:
    table = lines(rich_report())[1:7]
    assert [line.split("  ")[0] for line in table] == [
        *("main, pinned", "dev", "7000000000", "… to 4000000000", "2000000000", "1000000000"),
    ]
    assert "3 commits alike" in table[3]


def test_two_commits_alike_are_both_shown() -> None:
    table = list(takewhile(lambda line: "No drift" not in line, lines(report(tree(3), tree(2)), 200)))
    assert [line.split()[0] for line in table[-2:]] == ["3000000000", "2000000000"]
    assert all(line.split().count("ok") == 8 for line in table[-2:])


def test_a_name_takes_the_cells_that_it_needs() -> None:
    name = "多卡部署分支名字"
    assert lines(report(tree(1, name)), width=60)[1].startswith(f"{name}  2023")


def test_where_names_do_not_fit_they_are_numbered_and_explained() -> None:
    out = lines(clean_report(), width=60)
    assert out[0].split() == ["tree", "date", "subject", *"12345678"]
    assert out[1].split() == ["main", "2023-03-23", "Update", *"✓✓✓✓✓✓✓✓"]
    assert "1 requirements, 2 process-group, 3 precision, 4 frozen-broadcast" in out[3]
    assert out[4] == "✓ ok  ↑ landed  · not yet  ∅ gone  ✗ conflict  ! wrong  "


@pytest.mark.parametrize("width", [50, 80, 120, 200])
@pytest.mark.parametrize("one", [rich_report(), clean_report(), nasty_report(), report(), report(tree(1))])
def test_the_table_keeps_to_the_width(one: Report, width: int) -> None:
    ends = ("1 requirements", "conflict: ", "No drift")
    top = takewhile(lambda line: not line.startswith(ends), lines(one, width))
    table = [line for line in top if re.search(r"\d{4}-\d\d-\d\d", line)]
    assert len(table) == min(len(one.trees), 6) or one.trees[0].names == (NASTY[0],)
    assert max(map(cell_len, table), default=0) <= width
    assert all(line.split()[-1] in {"✓", "✗", "ok", "CONFLICT"} for line in table if "… to" not in line)
    assert all("\x1b" not in line and "\u202e" not in line for line in table)


def test_a_trouble_is_told_once_with_where_and_since() -> None:
    text = render(rich_report())
    assert (
        "conflict: ptuning/main.py:12 (precision, swap)\n"
        "  expected: expected no such text\n"
        "  found:    found no such text\n"
        "  hint:     hint no such text\n"
        "  since:    3000000000 2023-03-17 no such text\n"
        "  where:    main, pinned, 4 old commits (4000000000 to 7000000000)\n"
    ) in text
    assert "once a conflict: ptuning/main.py:12 (cpu-demos, swap)\n" in text
    assert "landed: cpu-autocast has nothing left to do in main, pinned, dev: drop it there\n" in text


def test_colours_are_for_terminals() -> None:
    file = io.StringIO()
    print_report(Console(file=file, width=120, force_terminal=True, color_system="standard"), rich_report())
    assert "\x1b[1;31mCONFLICT" in file.getvalue() or "\x1b[1;31m✗" in file.getvalue()
