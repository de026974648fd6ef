from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from types import ModuleType

import libcst as cst
import pytest

from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import Site, find_nodes, walk
from tests.support import text


@pytest.mark.parametrize("module", [argparse, shutil])
@pytest.mark.parametrize("word", ["os", "None", "name", "parse_args"])
def test_finds_what_a_walk_through_the_whole_tree_finds(module: ModuleType, word: str) -> None:
    file = PythonFile(Path(module.__file__ or "").read_bytes())
    whole = [site for site in walk(file.module) if isinstance(site.node, cst.Name) and site.node.value == word]
    found = [site for site in find_nodes(file, cst.Name, [word]) if site.node.value == word]
    assert found == whole


def test_finds_words_in_defaults_annotations_and_decorators() -> None:
    file = PythonFile(text("@word\ndef f(a: word = word, *b: word) -> word:\n    pass\n"))
    assert len([site for site in find_nodes(file, cst.Name, ["word"]) if site.node.value == "word"]) == 5


def test_finds_whole_words_alone() -> None:
    file = PythonFile(text("words = reword = wo\n"))
    assert list(find_nodes(file, cst.Name, ["word"])) == []


def test_site_knows_what_is_around_it() -> None:
    file = PythonFile(text("class A:\n    def f(self):\n        if word:\n            call(word)\n"))
    condition, argument = find_nodes(file, cst.Name, ["word"])
    assert isinstance(condition, Site)
    assert condition.scopes == argument.scopes == ("A", "f")
    assert condition.function is argument.function is not None
    assert isinstance(condition.statement, cst.If)
    assert isinstance(argument.statement, cst.SimpleStatementLine)
