from __future__ import annotations

import ast
import textwrap
from typing import ClassVar

import libcst as cst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Refusal, Replacement, Rewrite, replace_spans
from glmpatch.patching.syntax.python import PythonFile, PythonTransform, Span, Statement, below_docstring
from tests.support import text


def put(file: PythonFile, replacement: Replacement) -> bytes:
    return replace_spans(file.data, (replacement,))


def only(file: PythonFile, kind: type[cst.CSTNode]) -> list[Statement]:
    """All statements of a kind, in source order."""
    found: list[Statement] = []

    class Collect(cst.CSTVisitor):
        def on_visit(self, node: cst.CSTNode) -> bool:
            if isinstance(node, kind) and isinstance(node, Statement):
                found.append(node)
            return True

    file.module.visit(Collect())
    return found


def refusal(data: bytes) -> Conflict:
    with pytest.raises(Refusal) as caught:
        PythonFile(data)
    return caught.value.conflict


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("x = 1\ny = (\n", 2),
        ("x = 1\nif x:\n\ty\n        z\n", 4),
        ("x = 1\ny = 'abc\n", 2),
        ("x = 1\nprint 'a'\n", 2),
        ("x = 1\\", None),
        ("x\0y", None),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_its_line(code: str, line: int | None) -> None:
    conflict = refusal(code.encode())
    assert conflict.found
    if line is not None:
        assert conflict.line == line


@pytest.mark.parametrize("opening", ["(", "[", "f(", "-", "not ", "lambda: ", "a + ("])
def test_nesting_without_end_is_refused_not_a_crash(opening: str) -> None:
    closing = {"(": ")", "[": "]"}.get(opening[-1], "")
    assert refusal(f"x = {opening * 20_000}1{closing * 20_000}\n".encode()).expected == "a file that Python can parse"


def test_invalid_escapes_of_upstream_warn_nobody() -> None:
    assert PythonFile(b"x = '\\d'\n").newline == "\n"


def test_spans_count_bytes() -> None:
    file = PythonFile("s = '中文'; t = 1\r\nu = 2\r\n".encode())
    first, second = file.module.body
    assert file.code(second) == "u = 2"
    assert file.span(second) == Span(21, 26)
    assert (file.line(first), file.line(second), file.newline) == (1, 2, "\r\n")


def test_refusing_shows_the_first_line() -> None:
    file = PythonFile(b"x = 1\nf(\n  2)\n")
    with pytest.raises(Refusal) as caught:
        file.refuse(file.module.body[1], "another call", hint="write it")
    assert caught.value.conflict == Conflict("another call", "f(", "write it", 2)


def test_a_branch_of_another_statement_has_no_place() -> None:
    file = PythonFile(b"if a: b()\nelif c: d()\n")
    first = file.module.body[0]
    assert isinstance(first, cst.If)
    assert isinstance(first.orelse, cst.If)
    for edit in (file.insert_before, file.insert_after, file.insert_above_comments):
        with pytest.raises(Refusal) as caught:
            edit(first.orelse, ["x()"])
        assert caught.value.conflict.expected == "a statement on a line of its own"


def test_whole_lines_need_lines_that_we_see() -> None:
    file = PythonFile(b"x = 1\ny = 2\rz = 3\n")
    assert [file.code(statement) for statement in file.module.body] == ["x = 1", "y = 2", "z = 3"]
    for edit in (file.insert_before, file.insert_after, file.insert_above_comments):
        with pytest.raises(Refusal) as caught:
            edit(only(file, cst.SimpleStatementLine)[1], ["x()"])
        assert (caught.value.conflict.found, caught.value.conflict.line) == ("a lone CR", 2)


def test_decorators_belong_to_the_statement() -> None:
    file = PythonFile(b"a()\n\n# of f\n@one\n# of two\n@two(\n    1)\ndef f():\n    pass\n")
    function = file.module.body[1]
    assert isinstance(function, cst.FunctionDef)
    before = put(file, file.insert_before(function, ["x()"]))
    assert before.index(b"# of f\nx()\n@one") > 0
    above = put(file, file.insert_above_comments(function, ["x()"]))
    assert b"a()\n\nx()\n# of f\n@one" in above


def test_comments_at_the_top_belong_to_the_file() -> None:
    file = PythonFile(b"#!/usr/bin/env python\n# coding: utf-8\nimport os\n")
    (statement,) = only(file, cst.SimpleStatementLine)
    assert put(file, file.insert_above_comments(statement, ["x()"])).endswith(b"# coding: utf-8\nx()\nimport os\n")


def test_lines_keep_their_own_indentation_and_empty_ones_have_none() -> None:
    file = PythonFile(b"if a:\n\tb()\n")
    statement = only(file, cst.SimpleStatementLine)[0]
    assert put(file, file.insert_after(statement, ["with c:", "", "    d()"])) == (
        b"if a:\n\tb()\n\twith c:\n\n\t    d()\n"
    )


BLOCKS = [
    "a = 1",
    "a = 1; b = 2",
    "a = '''x\n  y\n'''",
    "a = (\n1,\n  # c\n)",
    "a = 1 + \\\n  2",
    "if a:\n    b()\nelse:\n    c()",
]


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from([*BLOCKS, "@d\ndef f():\n    pass", "# comment", "", "for x in y: z()"]), min_size=1, max_size=5
    ),
    st.sampled_from(["", "    ", "\t", "  "]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "  # \u4e2d\u6587"]),
    st.booleans(),
    st.data(),
)
def test_inserted_lines_are_statements_of_their_own(  # noqa: PLR0913, PLR0917 - one strategy each
    blocks: list[str], indent: str, ending: str, comment: str, last_newline: bool, data: st.DataObject
) -> None:
    """Around any statement, anywhere: the new line becomes its neighbour, and every old line stays as it was."""
    body = "\n".join(
        f"{block}{comment}" if block in {"a = 1", "a = 1; b = 2"} else block for block in [*blocks, "end()"]
    )
    code = body if not indent else "def g():\n" + textwrap.indent(body, indent, lambda _line: True)
    code = code.replace("\n", ending) + (ending if last_newline else "")
    file = PythonFile(code.encode())
    statement = data.draw(st.sampled_from([*only(file, cst.SimpleStatementLine), *only(file, cst.FunctionDef)]))
    edit = data.draw(st.sampled_from([file.insert_before, file.insert_after, file.insert_above_comments]))
    replacement = edit(statement, ["new()"])
    assert replacement.start == replacement.end
    assert replacement.data.count(b"\n") == 1
    after = put(file, replacement).decode()
    if ending == "\r\n":
        assert after.count("\r\n") == after.count("\n")
    assert after.count("new()") == 1
    ast.parse(after)
    without = [line for line in after.splitlines() if line.strip() != "new()"]
    assert without == code.splitlines()
    again = PythonFile(after.encode())
    names = [again.code(found) for found in only(again, cst.SimpleStatementLine)]
    assert names.count("new()") == 1


@given(st.text())
def test_any_text_is_read_or_refused(code: str) -> None:
    try:
        file = PythonFile(code.encode(errors="replace"))
        file.span(file.module)
    except Refusal:
        return
    ast.parse(code.encode(errors="replace"))


def test_below_docstring() -> None:
    file = PythonFile(b'"""Doc."""\nx = 1\ndef f():\n    "doc"\n    y()\ndef g(): z()\n')
    statements = below_docstring(file.module)
    assert [file.code(statement).split("\n")[0] for statement in statements] == ["x = 1", "def f():", "def g(): z()"]
    functions = [statement for statement in statements if isinstance(statement, cst.FunctionDef)]
    assert [len(below_docstring(function)) for function in functions] == [1, 0]


def test_a_transform_on_python() -> None:
    class Rename(PythonTransform, frozen=True, kw_only=True, forbid_unknown_fields=True):
        name: ClassVar[str] = "rename"

        def rewrite_python(self, file: PythonFile) -> Rewrite:
            statement = file.module.body[0]
            if file.code(statement) == "y = 1":
                return Rewrite()
            span = file.span(statement)
            return Rewrite((Replacement(span.start, span.end, b"y = 1"),))

    changed = Rename()(text("x = 1  # 中\n"))
    assert changed == Changed("y = 1  # 中\n".encode())
    assert isinstance(Rename()(changed.data), AlreadyDone)
    assert isinstance(Rename()(b"x = ("), Conflict)


def test_chain_that_the_code_generator_cannot_follow_is_refused() -> None:
    file = PythonFile(b"if a == 0:\n    pass\n" + b"elif a:\n    pass\n" * 900)
    with pytest.raises(Refusal) as caught:
        file.span(file.module.body[0])
    assert caught.value.conflict.found == "code that is nested too deeply"
