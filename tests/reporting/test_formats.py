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
from tests.reporting.reports import NASTY, clean_report, nasty_report, report, rich_report, tree


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
    assert verdict(replace(old, trees=old.trees[1:])).startswith("No drift: nothing")


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
