from __future__ import annotations

import libcst as cst
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.patching.model import Refusal, replace_spans
from glmpatch.patching.syntax.parts import definitions, statements_with
from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import find_nodes

FILLER = "\n".join(f"value_{number} = {number}  # 填充" for number in range(40)) + "\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_definitions_are_read_alone_with_the_places_of_the_file(ending: str) -> None:
    code = (
        "# 中文\nclass A:\n\n    @d\n    def f(self):\n        '''x\n        '''\n        return 1\n\n"
        "    def g(self): pass\n\nasync def f(): pass\n"
    )
    data = code.replace("\n", ending).encode()
    found = definitions(data, "f")
    assert [file.line(function) for file, function in found] == [5, 12]
    (file, function), _ = found
    assert file.code(function).startswith("def f(self):")
    replacement = file.insert_before(function, ["x = 1"])
    inserted = replace_spans(data, (replacement,)).decode()
    assert f"{ending}    x = 1{ending}    @d{ending}" in inserted
    assert definitions(data, "h") == []


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_statements_are_read_alone_with_the_places_of_the_file(ending: str) -> None:
    code = f"import a\n{FILLER}@word\ndef f():\n    return 'é'\n\n{FILLER}x = word; y = word  # 两个\n{FILLER}z = word"
    data = code.replace("\n", ending).encode()
    file = statements_with(data, ["word"])
    assert len(file.module.body) == 3
    whole = PythonFile(data)
    names = [(file.span(site.node), file.line(site.node)) for site in find_nodes(file, cst.Name, ["word"])]
    assert names == [(whole.span(site.node), whole.line(site.node)) for site in find_nodes(whole, cst.Name, ["word"])]
    assert len([site for site in find_nodes(file, cst.Name, ["word"]) if site.node.value == "word"]) == 4


def test_most_of_a_file_is_all_of_it() -> None:
    file = statements_with(b"x = 1\nwords = [word, word]\n", ["word"])
    assert len(file.module.body) == 2


def test_a_file_without_the_words_is_all_of_it() -> None:
    assert len(statements_with(FILLER.encode(), ["word"]).module.body) == 40


def test_what_does_not_parse_is_refused() -> None:
    with pytest.raises(Refusal):
        statements_with(f"{FILLER}x = (\n".encode(), ["word"])


STATEMENTS = st.sampled_from(
    [
        "x = word\n",
        "@word\n@other\ndef f(a=word):\n    '''word\n'''\n    return word\n",
        "# word\n",
        "\n",
        "if word:\n    pass\nelse:\n    word()\n",
        "y = 1; z = word  # 中文 word\n",
        "other = ('word' \\\n    'words')\n",
        FILLER,
    ]
)


@given(st.lists(STATEMENTS, max_size=12).map("".join), st.sampled_from(["\n", "\r\n"]))
def test_the_same_nodes_are_found_as_in_the_whole(code: str, ending: str) -> None:
    data = code.replace("\n", ending).encode()
    part, whole = statements_with(data, ["word"]), PythonFile(data)
    kinds = (cst.Name, cst.SimpleString, cst.FunctionDef, cst.If)
    assert [part.span(site.node) for site in find_nodes(part, kinds, ["word"])] == [
        whole.span(site.node) for site in find_nodes(whole, kinds, ["word"])
    ]
