from __future__ import annotations

import pytest

from glmpatch.patching.model import Refusal, Replacement, replace_spans
from glmpatch.patching.syntax.shell import ShellFile
from tests.support import line_ending_variants


def edit(data: bytes, *replacements: Replacement) -> bytes:
    return replace_spans(data, replacements)


def refusal(code: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ShellFile(code.encode())
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"run a \\\n  b 1 \\\n  c\nnext\n",
        b"run a \\\n\tb 1 \\\n\tc\nnext\n",
        b"run a \\\n  b 1 \\\n  c \\\n\nnext\n",
    ],
)
def test_reading_does_not_depend_on_line_endings(data: bytes) -> None:
    for variant in line_ending_variants(data):
        file = ShellFile(variant)
        assert [word.text for word in file.commands[0].words] == ["run", "a", "b", "1", "c"]
        assert file.has_crlf == (b"\r" in variant)
        word = file.commands[0].words[3]
        assert edit(variant, file.replace(word.start, word.end, "22")) == variant.replace(b"1", b"22")
        assert file.line_at(word.start) == 2


@pytest.mark.parametrize(("first", "last", "left"), [(1, 1, "run b 1 c"), (2, 3, "run a c"), (4, 4, "run a b 1")])
@pytest.mark.parametrize("joiner", [" ", " \\\n  ", "\t\\\n\t", "\\\n    ", " \\\n \\\n  "])
def test_remove_takes_the_gap(first: int, last: int, left: str, joiner: str) -> None:
    data = f"echo\nrun{joiner}a{joiner}b 1{joiner}c\nnext\n".encode()
    for variant in line_ending_variants(data):
        file = ShellFile(variant)
        command = file.commands[1]
        done = edit(variant, file.remove(command, command.words[first], command.words[last]))
        assert done.replace(b"\r\n", b"\n").removesuffix(b"\n").decode() == (
            f"echo\n{left.replace(' ', joiner).replace(f'{joiner}1', ' 1')}\nnext"
        )


def test_remove_keeps_a_redirection() -> None:
    data = b"run > log a b 2>&1\n"
    file = ShellFile(data)
    _, first, last = file.commands[0].words
    assert edit(data, file.remove(file.commands[0], first, last)) == b"run > log 2>&1\n"


@pytest.mark.parametrize("gap", [" ", " \\\n", "  \\\n  "])
def test_remove_prefix(gap: str) -> None:
    data = f"A=1{gap}B=2 env{gap}C=3{gap}run\n".encode()
    file = ShellFile(data)
    (command,) = file.commands
    first = file.remove_prefix(command, command.assignments[0])
    second = file.remove_prefix(command, command.words[1])
    assert edit(data, first, second) == f"B=2 env{gap}run\n".encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("run", "run -x -y"),
        ("run > log 2>&1 &", "run -x -y > log 2>&1 &"),
        ("run -a 1 -b # why", "run -a 1 -b -x -y # why"),
        ("run \\\n  -a \\\n  -b 1 | cat", "run \\\n  -a \\\n  -b 1 \\\n  -x \\\n  -y | cat"),
        ("run \\\n  -a 1 -b 2 \\\n  -c 3 -d", "run \\\n  -a 1 -b 2 \\\n  -c 3 -d -x -y"),
        ("run \\\n\t-a \\\n\t\t1 \\\n\n", "run \\\n\t-a \\\n\t\t1 \\\n\t-x \\\n\t-y \\\n\n"),
        ("run a \\\n  b", "run a \\\n  b \\\n  -x \\\n  -y"),
        ("run \\\n-a\\\n -b", "run \\\n-a\\\n -b \\\n -x \\\n -y"),
        ("run -a \\\n  > log", "run -a -x -y \\\n  > log"),
    ],
)
def test_append_follows_the_style(before: str, after: str) -> None:
    for data, expected in zip(line_ending_variants(before.encode()), line_ending_variants(after.encode()), strict=True):
        file = ShellFile(data)
        assert edit(data, file.append(file.commands[0], ["-x", "-y"])) == expected


def test_append_takes_the_line_ending_of_the_command() -> None:
    data = b"A=1\r\nrun \\\n  -a\nB=2\r\nrun \\\r\n  -a\r\n"
    file = ShellFile(data)
    done = edit(data, *(file.append(command, ["-x"]) for command in file.commands))
    assert done == b"A=1\r\nrun \\\n  -a \\\n  -x\nB=2\r\nrun \\\r\n  -a \\\r\n  -x\r\n"


def test_commands_are_found_everywhere() -> None:
    code = (
        b"f() { one; }\nif two; then (three | four) & fi\nX=$(five)\nfor i in 1; do six; done\n! seven || time eight\n"
    )
    names = [command.words[0].text for command in ShellFile(code).commands]
    assert names == ["one", "two", "three", "four", "five", "six", "seven", "time"]
    assert ShellFile(code).functions == {"f"}


def test_assignments_that_are_commands_of_their_own() -> None:
    code = b"A=1\nB=2 C=x-$A-$B-y\nrun D=3\nexport E=4\nlocal F=5\nG+=(6)\nH[0]=7\nI=8 J=9\n\nexport K=10\nL=11 run\n"
    file = ShellFile(code)
    assert [(word.name, word.value) for word in file.assignments if word.is_static] == [
        ("A", "1"),
        ("B", "2"),
        ("E", "4"),
        ("F", "5"),
        ("H", "7"),
        ("I", "8"),
        ("J", "9"),
        ("K", "10"),
    ]
    assert [word.name for word in file.assignments if not word.is_static] == ["C", "G"]
    assert [word.text for command in file.commands for word in command.assignments] == ["L=11"]


def test_heredocs() -> None:
    assert [body.text for body in ShellFile(b"cat <<EOF\none\ntwo\nEOF\n").heredocs] == ["one\ntwo\n"]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("run a \\ \n  b\n", 1),
        ("run a \\\n  b \\\t\n  c\n", 2),
        ("run a \\ # comment\n", 1),
        ("run a\\\nb\n", 1),
        ("run \\\n  a\\\n'b'\n", 2),
        ("run a\\\n# no comment\n", 1),
        ("run 2\\\n>log\n", 1),
        ("run a \\\n  `b` `c`\n", 2),
        ("run > log # \\\n\\$ a\n", 1),
    ],
)
def test_gaps_that_bash_reads_otherwise(code: str, line: int) -> None:
    file = ShellFile(code.encode())
    with pytest.raises(Refusal) as caught:
        file.require_plain_gaps(file.commands[0])
    assert caught.value.conflict.line == line


@pytest.mark.parametrize(
    "code",
    [
        "A=1 \\\nrun a\\\n  b\\\n;\n",
        "run a\\\n\nnext\n",
        "run a \\\n# comment\n",
        "run a>log 2>&1\n",
        "run a \\",
        "run a \\\n",
        "run a-$A-$B-c\n",
        "x=$(run a\\\n)\n",
    ],
)
def test_plain_gaps(code: str) -> None:
    file = ShellFile(code.encode())
    file.require_plain_gaps(file.commands[0])


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("echo\nif true; then\n", 2, "bash -n"),
        ("echo\n\nrun (\n", 3, "bash -n"),
        ("echo a\rb\n", 1, "LF or CRLF"),
        ("echo\necho \0\n", 2, "LF or CRLF"),
        ("\n@echo off\npython main.py\n", 2, "batch"),
        ("python main.py ^\n  --a\n", 1, "batch"),
        ("SET LR=1\n", 1, "batch"),
        ("python main.py --a %MODEL%\n", 1, "batch"),
    ],
)
def test_files_that_are_no_bash(code: str, line: int, found: str) -> None:
    conflict = refusal(code).conflict
    assert conflict.line == line
    assert found in conflict.expected + conflict.hint + conflict.found


@pytest.mark.parametrize(
    "code", ["D=$(date +%Y%m%d_%H%M%S)\n", "set -ex\n", "printf '%dh%dm'\n", "grep '^' x\n", "echo 100%\n"]
)
def test_bash_that_looks_like_a_batch_file(code: str) -> None:
    ShellFile(code.encode())
