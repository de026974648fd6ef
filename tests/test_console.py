from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from glmpatch.console import (
    make_console,
    plan_as_json,
    print_conflicts,
    print_diff,
    print_document,
    print_line,
    print_plan,
)
from glmpatch.patching.model import Edit, Refusal
from glmpatch.patching.plan import Plan, make_plan
from glmpatch.patching.series import Series
from tests.engine_support import Swap, patch

LONG = "a/" * 100 + "file.py"


class OneFile:
    def __init__(self, path: str, data: bytes | None) -> None:
        self.path, self.data = path, data

    def paths(self) -> list[str]:
        return [self.path]

    def read(self, path: str) -> bytes | None:
        if self.data is None:
            raise Refusal("a file", "\x1b[31mred\x1b[0m [bold]x[:key:]\n中\t\x07")
        return self.data if path == self.path else None


def plan_of(path: str, data: bytes | None, **options: Any) -> Plan:
    edit = Edit(path, Swap(old="old", new="new", **options))
    return make_plan(Series((patch("p", edit),)), OneFile(path, data))


def test_what_upstream_wrote_is_shown_as_it_is_but_for_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_conflicts(make_console(), plan_of("a.py", None))
    out = capsys.readouterr().out
    assert "\N{REPLACEMENT CHARACTER}[31mred" in out
    assert "[bold]x[:key:]\n中" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_path_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(make_console(), plan_of(LONG, b"old", notice="look here " * 20))
    out = capsys.readouterr().out
    assert f"note: {LONG}:1: look here look here" in out
    print_conflicts(make_console(stderr=True), plan_of(LONG, b""))
    assert f"conflict: {LONG}:1 (swap)\n" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_can_be_printed() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_line(Console(file=file), "a\udcff.py")
    file.seek(0)
    assert file.read() == "a\N{REPLACEMENT CHARACTER}.py\n"


def test_plain_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = make_console()
    assert not console.is_terminal
    assert console.width >= 120
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(force_terminal=True, file=io.StringIO())
    print_plan(terminal, plan_of("a.py", b"old"))
    assert "\x1b[" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Console(force_terminal=True, file=io.StringIO())
    print_plan(terminal, plan_of("a.py", b"old"))
    assert "\x1b[3" not in terminal.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_diff_keeps_its_bytes(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_diff(make_console(), "中\r\n\x0c".encode())
    assert raw.getvalue() == "中\r\n\x0c".encode()


def test_a_diff_is_coloured_on_a_terminal() -> None:
    terminal = Console(force_terminal=True, color_system="standard", file=io.StringIO())
    print_diff(terminal, b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
    assert "\x1b[" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_a_diff_cannot_act_on_a_terminal() -> None:
    terminal = Console(force_terminal=True, color_system=None, file=io.StringIO())
    print_diff(terminal, "+\x1b]0;owned\x07\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}\t中\n".encode())
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "\N{REPLACEMENT CHARACTER}]0;owned" in shown
    assert "中" in shown
    assert not {"\x1b", "\x07", "\N{RIGHT-TO-LEFT OVERRIDE}"} & set(shown)


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_a_document_is_utf8_whatever_the_terminal_speaks(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_document("中\n")
    assert raw.getvalue() == "中\n".encode()


def test_a_document_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `>&-` in a shell."""
    monkeypatch.setattr("sys.stdout", None)
    print_document("x\n")


def test_notices_are_in_the_json() -> None:
    report = plan_as_json(plan_of("a.py", b"new", notice="look"), [])
    (edit,) = report["patches"][0]["edits"]
    assert edit["outcome"] == "already done"
    assert [notice.message for notice in edit["notices"]] == ["look"]
