from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.patching.model import Refusal, replace_spans
from glmpatch.patching.syntax.cpp import CppFile

# Each has one `name` that is code; the others are none.
ONE_NAME = [
    "int name; // name",
    "int name; // name \\\n name",
    "int name; /* name\n#if name\n name */",
    'auto x = "name \\" name" + name;',
    'auto x = "name \\\n name" + name;',
    "auto x = '\\'' + name + '\"'; // name '",
    "auto x = 1'000 + name + 0x1'F; // it's a name",
    'auto x = R"(name " name)" + name;',
    'auto x = u8R"a(name )" name)a" + name; // "name',
    'auto x = WIDER"name" + name;',
    '#include "x" // /* x\n#define A "/*"\nint name; // */',
    "int names, rename, name;",
    "#if 0\n#elif A /* \n */ && B\nint name;\n#endif",
]
LINE_ENDINGS = ["\n", "\r\n"]


@pytest.mark.parametrize("newline", LINE_ENDINGS)
@pytest.mark.parametrize("code", ONE_NAME)
def test_only_code_is_found(code: str, newline: str) -> None:
    data = code.replace("\n", newline).encode()
    file = CppFile(data)
    assert file.text == data
    (node,) = file.find("name")
    assert file.source(node) == "name"


@pytest.mark.parametrize("newline", LINE_ENDINGS)
@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("int x;\n#define NAME \\\n  name", 3, "name"),
        ("  # if defined(name)\n#endif", 1, "# if defined(name)"),
        ("void f() {\n  } } name(\n", 2, "} } name("),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(code: str, line: int, found: str, newline: str) -> None:
    with pytest.raises(Refusal) as caught:
        CppFile(code.replace("\n", newline).encode()).find("name")
    assert (caught.value.conflict.line, caught.value.conflict.found) == (line, found)


def test_an_error_elsewhere_is_harmless() -> None:
    file = CppFile(b"void f(){ CHECK(false)}\nint x = name(1);\nvoid g() { int y = 1 }\n")
    (node,) = file.find("name")
    assert node.parent is not None
    file.require_sound(node.parent)


def test_an_error_inside_is_refused() -> None:
    file = CppFile(b"int x =\n  name(1,\n  2 @ 3);\n")
    (node,) = file.find("name")
    assert node.parent is not None
    with pytest.raises(Refusal) as caught:
        file.require_sound(node.parent)
    assert caught.value.conflict.line == 3


def test_what_is_conditional() -> None:
    file = CppFile(
        b"#ifdef A\nint a;\n#if B // #endif\nint b;\n#else\nint c; /*\n#endif\n*/ int d;\n#endif\nint e;\n#endif\n"
    )
    start = file.text.index(b"int a")
    places = {name: file.text.index(b"int %b" % name.encode()) for name in "abcde"}
    assert {name for name, place in places.items() if file.is_conditional(start, place)} == set("bcd")
    assert file.is_conditional(0, places["e"])


@pytest.mark.parametrize("newline", LINE_ENDINGS)
@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("int name;\nint x;", "int name;\nNEW\n}\nint x;"),
        ("int name;  // why\nint x;", "int name;  // why\nNEW\n}\nint x;"),
        ("int name;  // why", "int name;  // why\nNEW\n}"),
        ("int name; int x;", "int name;\nNEW\n} int x;"),
        ("int name; /* why\n*/ int x;", "int name;\nNEW\n} /* why\n*/ int x;"),
        ("int name;  // why \\\nelse\nint x;", "int name;\nNEW\n}  // why \\\nelse\nint x;"),
    ],
)
def test_inserts_below(code: str, after: str, newline: str) -> None:
    file = CppFile(code.replace("\n", newline).encode())
    (node,) = file.find("name")
    assert node.parent is not None
    result = replace_spans(file.text, (file.insert_below(node.parent, "NEW\n}"),)).decode()
    if "\n" in code:
        assert result == after.replace("\n", newline)
    else:
        assert result == after


@given(st.lists(st.sampled_from([*ONE_NAME, "\n", "\r\n", '"', "'", "/*", "*/", "//", "\\", "#", 'R"(', ')"', "名"])))
def test_any_text_is_read_without_loss(parts: list[str]) -> None:
    data = "".join(parts).encode()
    file = CppFile(data)
    assert file.text == data
    try:
        nodes = file.find("name")
    except Refusal:
        return
    for node in nodes:
        assert data[node.start_byte : node.end_byte] == b"name"
