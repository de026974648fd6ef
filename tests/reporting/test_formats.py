"""What holds for all formats, and for what they share."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from glmpatch.checking.model import Standing
from glmpatch.reporting import FORMATS
from glmpatch.reporting.findings import find_troubles
from glmpatch.reporting.words import one_line, verdict
from tests.reporting.reports import NASTY, PATCHES, cell, clean_report, nasty_report, report, rich_report, tree, trouble


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_can_be_written_to_a_file_and_is_the_same_again(name: str) -> None:
    for one in (rich_report(), nasty_report(), nasty_report(folder=True), clean_report(), report()):
        text = FORMATS[name](one)
        assert text.encode().endswith(b"\n")
        assert text == FORMATS[name](one)


@pytest.mark.parametrize("name", ["text", "markdown", "github", "html", "junit"])
def test_nothing_acts_on_a_terminal(name: str) -> None:
    text = FORMATS[name](nasty_report())
    assert not {sign for sign in text if not sign.isprintable() and sign not in "\n\t"}


def test_a_trouble_is_found_once_wherever_it_is() -> None:
    one, wrong, once = find_troubles(rich_report())
    assert (one.patch.id, one.trouble.line, len(one.trees)) == ("precision", 12, 5)
    assert one.where() == "main, pinned, 4 old commits (4000000000 to 7000000000)"
    assert wrong.standing is Standing.WRONG
    assert not once.heads
    assert once.where() == "1 old commit (2000000000)"


def test_the_verdict_counts_the_heads_alone() -> None:
    assert verdict(rich_report()) == "Drift: 2 of 8 patches (precision, train-flags) do not fit main, pinned."
    assert verdict(clean_report()) == "No drift: 8 patches fit main, dev."
    old = report(tree(9, "main"), *rich_report().trees[2:])
    assert verdict(old) == "No drift: 8 patches fit main."
    assert verdict(replace(old, patches=PATCHES[:1])) == "No drift: 1 patch fits main."
    assert verdict(replace(old, trees=old.trees[1:])).startswith("No drift: nothing")


def test_the_verdict_says_where_patches_have_nothing_to_do() -> None:
    gone, early = cell(Standing.GONE), cell(Standing.NOT_YET)
    some = tree(3, "some", precision=gone, cpu_demos=early)
    one = tree(2, "one", precision=early)
    none = replace(tree(1, "none"), patches=tuple(replace(gone, patch=patch) for patch in PATCHES))
    clean = tree(4, "main", precision=cell(Standing.LANDED))
    told = "No drift: 8 patches fit main; nothing to patch for 2 of 8 patches in some."
    assert verdict(report(clean, some)) == told
    assert verdict(report(none)) == "No drift: nothing to patch for 8 of 8 patches in none."
    assert verdict(report(some, one)) == "No drift: nothing to patch for up to 2 of 8 patches in some, one."


@pytest.mark.parametrize("path", [".", "..", "../.."])
def test_a_folder_of_dots_is_not_lost_in_a_sentence(path: str) -> None:
    one = report(tree(0, path, folder=True))
    assert verdict(one) == f'No drift: 8 patches fit the folder "{path}".'
    assert f'the folder "{path}"' in FORMATS["text"](one)
    assert f"fit `{path}`." in FORMATS["markdown"](one)
    assert f'<span class="tag">the folder &#34;{path}&#34;</span>' in FORMATS["html"](one)
    assert verdict(report(tree(0, "./fork", folder=True))) == "No drift: 8 patches fit ./fork."


@pytest.mark.parametrize("name", FORMATS)
def test_a_lone_surrogate_can_be_written(name: str) -> None:
    text = FORMATS[name](report(tree(1, "main", precision=cell(Standing.CONFLICT, trouble("lone \ud800 end")))))
    assert "lone \N{REPLACEMENT CHARACTER} end" in text.encode().decode()


@pytest.mark.parametrize("text", NASTY)
def test_any_text_becomes_one_short_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert 0 < len(line) <= 300


def test_text_does_not_pay_for_html() -> None:
    code = (
        "import sys, glmpatch.reporting.as_text; print({'jinja2', 'xml.etree', 'pygments.lexers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
