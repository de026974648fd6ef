"""Shell read by a small tokenizer: words, operators, comments. And `bash -n`, which reads and does not run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glmpatch.checking.postconditions.broken import Broken, Edited
from glmpatch.errors import EnvironmentLacksError
from glmpatch.process import CommandFailedError, stream

_NESTED = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_TOKEN = re.compile(
    rf"""
    (?P<blank>(?:[ \t]|\\\n)+)
    |(?P<newline>\n)
    |(?P<comment>\#[^\n]*)
    |(?P<redirect>\d*(?:<<<|<<-?|<>|<&|>>|>\||>&|[<>])|&>>?)
    |(?P<operator>[;&|()]+)
    |(?P<word>(?:
        \\[\s\S]
        |'[^']*'
        |"(?:\\[\s\S]|\${_NESTED}|\$(?!\()|[^"\\$])*"
        |\${_NESTED}
        |\$\{{[^}}]*\}}
        |`[^`]*`
        |[^\s;&|()<>'"\\`]
    )+)
    |(?P<other>[\s\S])
    """,
    re.VERBOSE,
)
_LINE = re.compile(r"line (\d+): (.*)")


class Token(NamedTuple):
    """A piece of a script, with its line: a word, operator, redirect, comment, newline or here-document."""

    kind: str
    source: str
    line: int

    @property
    def text(self) -> str:
        """The word without its quotes and backslashes."""
        return re.sub(r"\\(.)|[\"']", r"\1", self.source)


def tokens(text: str) -> Iterator[Token]:
    """The pieces of a script, without the blanks between them."""
    place, line = 0, 1
    awaited: list[str] = []
    before = ""
    while match := _TOKEN.match(text, place):
        kind, source = match.lastgroup or "other", match.group()
        if kind != "blank":
            yield Token(kind, source.replace("\\\n", ""), line)
        place, line = match.end(), line + source.count("\n")
        if kind == "word" and before in {"<<", "<<-"}:
            awaited.append(Token(kind, source, line).text)
        elif kind == "newline" and awaited:
            ends = "".join(rf"(?:[\s\S]*?\n)??\t*{re.escape(word)}(?:\n|\Z)" for word in awaited)
            body = re.compile(ends).match(text, place)
            awaited = []
            if body:
                yield Token("heredoc", body.group(), line)
                place, line = body.end(), line + body.group().count("\n")
        if kind != "blank":
            before = source


def find_new_syntax_error(edited: Edited) -> list[Broken]:
    """What bash says against a script that it took before the edits.

    Raises:
        EnvironmentLacksError: There is no bash, or it was killed.
    """
    found = list(_find_syntax_error(edited.after))
    return [] if found and list(_find_syntax_error(edited.before)) else found


def _find_syntax_error(text: str) -> Iterator[Broken]:
    """What bash says. It reads the script alone: no start-up file, nothing of the environment."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script")
        script.write_text(text, encoding="utf-8", newline="\n")
        try:
            for _ in stream(["bash", "--norc", "--noprofile", "-n", str(script)], env={"LC_ALL": "C"}):
                pass
        except CommandFailedError as error:
            if error.returncode < 0:
                raise EnvironmentLacksError(
                    f"bash was killed by signal {-error.returncode} while it read a script of {len(text):,} characters",
                    hint="this is what happens when memory runs out: free some, and run it again",
                ) from error
            match = _LINE.search(error.tail)
            line, message = (int(match.group(1)), match.group(2)) if match else (None, error.tail.strip())
            yield Broken("a script that bash can parse", message, line)
