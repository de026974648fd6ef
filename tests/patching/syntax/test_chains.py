from __future__ import annotations

import pytest

from glmpatch.patching.model import replace_spans
from glmpatch.patching.syntax.chains import find_chains, remove, rename
from glmpatch.patching.syntax.python import PythonFile


def chains_in(code: str) -> list[tuple[str, list[str]]]:
    file = PythonFile(code.encode())
    chains = find_chains(file, {"a", "b"})
    return [(file.code(chain.root), [link.method for link in chain.links]) for chain in chains]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x.a()", [("x", ["a"])]),
        ("x.y.a().b(1).a()", [("x.y", ["a", "b", "a"])]),
        ("(x.a()).b()", [("x", ["a", "b"])]),
        ("x.a().other().b()", [("x.a().other()", ["b"]), ("x", ["a"])]),
        ("f(x.a(), y.b())", [("x", ["a"]), ("y", ["b"])]),
        ("x.a(y.b())", [("x", ["a"]), ("y", ["b"])]),
        ("a(); x.a; x.ab(); 'x.a()'  # x.b()", []),
    ],
)
def test_finds_the_longest_chains(code: str, expected: list[tuple[str, list[str]]]) -> None:
    assert chains_in(code) == expected


@pytest.mark.parametrize(
    ("code", "renamed", "removed"),
    [
        ("y = x.a().b()", "y = x.new().b()", "y = x.b()"),
        ("y = (x) . a ( ) . b ( )", "y = (x) . new ( ) . b ( )", "y = (x) . b ( )"),
        ("y = x \\\n  .a() \\\n  .b()", "y = x \\\n  .new() \\\n  .b()", "y = x \\\n  .b()"),
        ("y = (x\n  .a()  # 一\n  .b())", "y = (x\n  .new()  # 一\n  .b())", "y = (x  # 一\n  .b())"),
        ("y = (x  # 一\n  .a()\n  .b())", "y = (x  # 一\n  .new()\n  .b())", "y = (x  # 一\n  .b())"),
        ("y = (x  # 一\n  .a().b())", "y = (x  # 一\n  .new().b())", "y = (x  # 一\n  .b())"),
        ("y = (x\n  # 一\n  .a())", "y = (x\n  # 一\n  .new())", "y = (x\n  # 一\n  )"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", "if x:\n\t", "def f():\n  if x:\n    "])
def test_edits_one_link(code: str, renamed: str, removed: str, newline: str, head: str) -> None:
    indentation = head.rpartition("\n")[2]

    def data(text: str) -> bytes:
        return (head + text.replace("\n", "\n" + indentation)).replace("\n", newline).encode()

    file = PythonFile(data(code))
    (chain,) = find_chains(file, {"a", "b"})
    assert replace_spans(file.data, (rename(file, chain.links[0], "new"),)) == data(renamed)
    assert replace_spans(file.data, (remove(file, chain.links[0]),)) == data(removed)
