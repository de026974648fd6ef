from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.patching.model import Refusal
from glmpatch.patching.syntax.shell import ShellFile
from glmpatch.patching.syntax.shell_words import EXPANSION, SimpleCommand, Word


def command(code: str) -> SimpleCommand:
    return ShellFile(code.encode()).commands[0]


def word(code: str) -> Word:
    _, found = command(f"run {code}\n").words
    return found


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("plain", "plain"),
        ("4", "4"),
        ("-1", "-1"),
        ("'single \"quotes\"'", 'single "quotes"'),
        ('"double \'quotes\' \\" \\n"', "double 'quotes' \" \\n"),
        ("back\\ slash", "back slash"),
        ("--name='a b'\"c\"d", "--name=a bcd"),
        ("[1,2]", "[1,2]"),
        ("中文", "中文"),
        ('"over \\\nlines"', "over lines"),
        ("$A", EXPANSION),
        ('"${A}/$B $C"', f"{EXPANSION}/{EXPANSION} {EXPANSION}"),
        ("x-$(date +%s)-`id`", f"x-{EXPANSION}-{EXPANSION}"),
        ("$((1 + 2))", EXPANSION),
        ("$'\\t'", EXPANSION),
        ("a-$A-$B-c", f"a-{EXPANSION}-{EXPANSION}-c"),
        ("a-$A-$B-$C", f"a-{EXPANSION}-{EXPANSION}-{EXPANSION}"),
    ],
)
def test_text_is_the_word_without_quotes(code: str, text: str) -> None:
    assert word(code).text == text
    assert word(code).source == code


@pytest.mark.parametrize(
    ("code", "splits", "is_list"),
    [
        ("plain", False, False),
        ("$A", True, False),
        ('"$A"', False, False),
        ("a-$A-$B-c", True, False),
        ("--a=$A", True, False),
        ("$((1 + 2))", False, False),
        ('"$@"', True, True),
        ("${@:2}", True, True),
        ('"${A[@]}"', True, True),
        ("'$@'", False, False),
    ],
)
def test_what_may_become_many_words(code: str, splits: bool, is_list: bool) -> None:
    assert (word(code).splits, word(code).is_list) == (splits, is_list)


def test_parts_of_a_word() -> None:
    assert word('"$A/b/main.py"').basename == "main.py"
    assert word('"$A"/${B:-$C}').variables == {"A", "B", "C"}


@pytest.mark.parametrize("close", ["2>&-", "<&-"])
def test_arguments_behind_redirections(close: str) -> None:
    found = command(f"run a <<< text b > log-$A-$B-c c 2>&1 d {close} e\n")
    assert [item.text for item in found.words] == ["run", *"abcde"]
    assert len(found.redirects) == 4


def test_redirection_behind_a_list_belongs_to_its_last_command() -> None:
    first, last = ShellFile(b"cd x && run a > log b\n").commands
    assert not first.redirects
    assert [item.text for item in last.words] == ["run", "a", "b"]


def test_assignments_before_a_command() -> None:
    found = command("A=1 OUT=o-$A-$B-c B= run D=2\n")
    assert [item.text for item in found.assignments] == ["A=1", f"OUT=o-{EXPANSION}-{EXPANSION}-c", "B="]
    assert [(item.name, item.value) for item in found.assignments][::2] == [("A", "1"), ("B", "")]
    assert [item.text for item in found.words] == ["run", "D=2"]


PIECES = ["a", "-", "_", "=", "/", "1", "$A-", "-$A/", "${A}", "'q r'", '"d $A e"', "\\ ", "[", ",", "\\\n"]


@settings(max_examples=80, deadline=None)
@given(
    words=st.lists(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
        min_size=1,
        max_size=6,
    )
)
def test_words_are_those_of_bash_or_refused(words: list[str]) -> None:
    code = "set -f; A=v; printf '%s\\n' start " + " ".join(words)
    bash = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    try:
        file = ShellFile(code.encode())
        printf = next(found for found in file.commands if found.words[0].text == "printf")
        file.require_plain_gaps(printf)
    except Refusal:
        return
    assert [item.text.replace(EXPANSION, "v") for item in printf.words[2:]] == bash.stdout.splitlines()
