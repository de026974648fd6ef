from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from glmpatch import __version__
from glmpatch.checking.model import Standing
from glmpatch.reporting.as_markdown import LARGEST, render
from tests.reporting.reports import NASTY, PATCHES, cell, clean_report, nasty_report, report, rich_report, tree, trouble


def tokens(text: str) -> list[Token]:
    """All tokens of the text as GitHub reads it, but for its links to people and issues."""
    parsed = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    return [token for block in parsed for token in (block, *(block.children or ()))]


def test_heads_by_patches() -> None:
    rows = [line for line in render(rich_report()).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert rows[2].startswith("| `main`, `pinned` | [`9000000000`](https://github.com/THUDM/ChatGLM-6B/commit/9000000")
    assert rows[2].count("✅ ok") == 5
    assert "❌ conflict" in rows[2]
    assert "❌ wrong result" in rows[2]


def test_a_section_for_each_trouble_of_the_heads() -> None:
    text = render(rich_report())
    url = "https://github.com/THUDM/ChatGLM-6B"
    assert (
        "### precision: conflict\n\n"
        f"- where: [`ptuning/main.py:12`]({url}/blob/9{'0' * 39}/ptuning/main.py#L12)\n"
        "- expected: `expected no such text`\n"
        "- found: `found no such text`\n"
        "- hint: `hint no such text`\n"
        "- in: `main`, `pinned`, 4 old commits (4000000000 to 7000000000)\n"
        f"- since: [`3000000000`]({url}/commit/3{'0' * 39}) 2023-03-17 `no such text`\n"
    ) in text
    assert "in `main`, `pinned`, `dev`: it can be dropped there. It can go for good when: `cpu-autocast is" in text
    assert "1 trouble that only old commits had" in text
    assert "## ✅ No drift: 8 patches fit `main`, `dev`." in render(clean_report())
    assert f"3 of them computed anew. Checked by glmpatch {__version__}.\n" in text


@pytest.mark.parametrize("upstream", ["/srv/git/ChatGLM-6B", "https://example.org/a/b", "https://github.com/a/b)[c/"])
def test_links_lead_to_github_alone(upstream: str) -> None:
    assert "](" not in render(replace(rich_report(), upstream=upstream)).replace(upstream, "")


def test_hostile_text_is_nothing_but_code() -> None:
    found = tokens(render(nasty_report()))
    shown = "".join(token.content for token in found if token.type == "text")
    for part in ("@octocat", "#1", "GH-1", "<script", "onerror", "javascript", "::error", "{{"):
        assert part not in shown
    assert not [token for token in found if token.type in {"html_inline", "html_block", "image", "link_open"}]
    code = [token.content for token in found if token.type == "code_inline"]
    assert any("@octocat #1 GH-1" in text for text in code)
    cells = [token for token in found if token.type in {"td_open", "th_open"}]
    assert len(cells) == 10 * (len(NASTY) + 1)


@pytest.mark.parametrize("text", ["", "`", "``a", "a`", " `` ` ``` ", "\\", "a\\"])
def test_backticks_do_not_end_a_code_span(text: str) -> None:
    one = report(tree(1, "main", precision=cell(Standing.CONFLICT, trouble(text))))
    found = tokens(render(one))
    assert not [token for token in found if token.type == "text" and "`" in token.content]
    code = [token.content for token in found if token.type == "code_inline"]
    assert " ".join(f"found {text}".split()) in code


def test_a_long_report_is_cut() -> None:
    rows = [tree(n, f"b{n}", precision=cell(Standing.CONFLICT, trouble("中" * n))) for n in range(1, 300)]
    text = render(report(*rows))
    assert LARGEST - 2_000 < len(text.encode()) <= LARGEST + 2_000
    assert len(text) < 65_536
    assert text.splitlines()[2].startswith("*This is longer than GitHub takes.")
    assert "longer than" not in render(rich_report())


def test_a_cut_report_hides_nothing_that_follows() -> None:
    rows = [tree(n, precision=cell(Standing.CONFLICT, trouble(f"{n} " + "w" * 250))) for n in range(1, 800)]
    text = render(report(tree(900, "main"), *rows))
    assert "longer than" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert text.endswith("\n\n</details>\n")
    assert len(text.encode()) <= LARGEST


def test_the_text_of_a_patch_mentions_nobody() -> None:
    patches = tuple(replace(patch, drop_when=NASTY[6]) for patch in PATCHES)
    one = replace(report(tree(1, "main", precision=cell(Standing.LANDED))), patches=patches)
    shown = "".join(token.content for token in tokens(render(one)) if token.type == "text")
    assert "It can go for good when: " in shown
    assert "@octocat" not in shown
