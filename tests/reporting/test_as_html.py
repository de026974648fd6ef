"""The page as text; `test_browser` opens it."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from glmpatch import __version__
from glmpatch.checking.model import FileChange, PatchCheck, Report, Standing, TreeCheck
from glmpatch.patching.model import Options
from glmpatch.patching.series import load_series
from glmpatch.reporting.as_html import render
from glmpatch.reporting.highlight import diff_lines
from tests.reporting.reports import (
    AFTER,
    CHANGE,
    IDS,
    NASTY,
    cell,
    clean_report,
    nasty_report,
    report,
    rich_report,
    tree,
)


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_cell_has_its_reason_without_a_script() -> None:
    buttons = [element for element in Page(render(rich_report())).all("button") if "data-detail" in element]
    assert len(buttons) == 8 * len(IDS)
    assert buttons[0]["title"] == "requirements, main, pinned (2023-03-23): clean. changes ptuning/main.py"
    assert buttons[2]["class"] == "conflict"
    assert buttons[2]["title"].endswith(
        "conflict. ptuning/main.py:12: expected expected no such text, found found no such text"
    )


def test_trees_share_the_panels_of_the_real_patches() -> None:
    # A transform of theirs holds a dict, so they have no hash.
    patches = load_series(Options()).patches
    cells = tuple(PatchCheck(patch, Standing.CLEAN) for patch in patches)
    rows = tuple(TreeCheck((name,), None, cells) for name in ("a", "b"))
    page = Page(render(Report("fork", patches, rows, files=1, computed=1)))
    assert [element["id"] for element in page.all("template")] == [f"p{number}" for number in range(len(patches))]
    shown = [element["data-detail"] for element in page.all("button") if "data-detail" in element]
    assert shown == [f"p{number}" for number in range(len(patches))] * 2


def test_what_only_old_commits_had_is_folded() -> None:
    text = render(rich_report())
    before, _, folded = text.partition("<details>")
    assert folded.startswith("\n<summary>1 trouble that only old commits had</summary>")
    assert "found what only old commits had" not in before.partition("<table")[0]
    inside = folded.partition("</details>")[0]
    assert "<h3>cpu-demos " in inside
    assert "found what only old commits had" in inside
    assert "1 old commit (2000000000)" in inside
    assert "<details>" not in render(clean_report())


def test_the_page_says_which_version_made_it() -> None:
    assert f'<p class="eyebrow">Checked by glmpatch {__version__}</p>' in render(clean_report())


def test_a_diff_is_in_it_once() -> None:
    text = render(rich_report())
    ids = [element["id"] for element in Page(text).all("template")]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name.startswith("d")] == ["d0"]
    assert text.count("The diff of ptuning/main.py") == 1
    other = replace(CHANGE, path="other.py"), replace(CHANGE, after=b"")
    more = report(tree(1, "main", precision=cell(Standing.CLEAN, changes=other)))
    assert [element["id"] for element in Page(render(more)).all("template") if element["id"][0] == "d"] == [
        "d0",
        "d1",
        "d2",
    ]


@pytest.mark.parametrize("one", [rich_report(), nasty_report(), clean_report(), report()])
def test_only_what_is_inline_may_run(one: object) -> None:
    text = render(one)  # type: ignore[arg-type]
    page = Page(text)
    policy = next(element["content"] for element in page.all("meta") if "http-equiv" in element)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy
        assert len(page.all(tag)) == 1
    for tag, attributes in page.elements:
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "style"}]
        assert attributes.get("href", "data:,").startswith(("data:,", "https://github.com/THUDM/ChatGLM-6B"))


def test_links_lead_to_github_alone() -> None:
    for upstream in ("javascript:alert(1)", "https://example.org/a/b", "/srv/git/ChatGLM-6B", NASTY[0]):
        assert not Page(render(replace(rich_report(), upstream=upstream))).all("a")
    assert Page(render(rich_report())).all("a")


def test_a_diff_has_signs_numbers_and_colours() -> None:
    lines = diff_lines(CHANGE)
    assert [(line.kind, line.number) for line in lines] == [
        ("@", ""),
        (" ", "2"),
        (" ", "3"),
        (" ", "4"),
        ("-", "5"),
        ("+", "5"),
        (" ", "6"),
    ]
    assert lines[3].text == '<span class="k">def</span> <span class="f">main</span>():'
    assert lines[5].text == "    model = new"
    assert "# \N{REPLACEMENT CHARACTER} &lt;/pre&gt;&lt;b&gt;</span>" in lines[6].text
    assert "<" not in "".join(line.text for line in diff_lines(replace(CHANGE, path="notes.txt")))


@pytest.mark.parametrize("path", ["a.py", "a.sh", "a.txt", "a\nb.py"])
@pytest.mark.parametrize(
    "before", [b"", b"x", b"x\r\n'''\r\ny\r\n", b"\n\n\n", b'"""\nx\n', b"\\ No newline\n", b"@@ -1 +1 @@\nx"]
)
def test_any_change_keeps_its_lines(path: str, before: bytes) -> None:
    after = before + b"\n" + "\n".join(NASTY).encode("utf-8", "replace") + AFTER
    lines = diff_lines(FileChange(path, before, after))
    assert sum(line.kind in "+ " for line in lines) == len(after.split(b"\n")) - 1
    assert sum(line.kind in "- " for line in lines) == len(before.split(b"\n")) - (before[-1:] in {b"", b"\n"})
    assert all(re.sub("</?span[^>]*>", "", line.text).isprintable() for line in lines)


def test_each_hunk_of_a_diff_has_its_own_numbers() -> None:
    before = b"".join(b"line%d\n" % number for number in range(1, 41))
    after = before.replace(b"line5\n", b"line5\nmore\n").replace(b"line30\n", b"")
    lines = diff_lines(FileChange("a.txt", before, after))
    assert [line.text for line in lines if line.kind == "@"] == ["@ -3,6 +3,7 @@", "@ -27,7 +28,6 @@"]
    assert [(line.kind, line.number, line.text) for line in lines if line.kind in "+-"] == [
        ("+", "6", "more"),
        ("-", "30", "line30"),
    ]
    assert lines[-1].number == "33"


def test_long_diffs_and_lines_are_cut() -> None:
    lines = diff_lines(FileChange("a.py", b"", b"x = 1\n" * 5_000))
    assert len(lines) == 1_001
    assert lines[-1].text == " 4,001 more lines"
    assert max(len(line.text) for line in diff_lines(FileChange("a.txt", b"", b"x" * 10_000))) < 1_000
