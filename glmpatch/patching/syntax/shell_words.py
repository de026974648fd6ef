"""The words of bash, read from the nodes of tree-sitter: simple commands, their arguments and redirections."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import tree_sitter

EXPANSION = "\0"
"""Stands in `Word.text` for what is known only when the script runs: `$A`, `${A}`, `$(command)`."""

_VARIABLE = re.compile(r"\$\{?[!#]?([A-Za-z_]\w*)")
_ALL_ELEMENTS = re.compile(r"\$\{?@|\[@\]")
_ENDS_IN_DOLLAR = re.compile(r"(?<!\\)(?:\\\\)*\$$")
_WITHOUT_BLANKS = re.compile(rb"(?:\\.|[^\\ \t])+", re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_UNQUOTED_EXPANSIONS = frozenset({"simple_expansion", "expansion", "command_substitution"})


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command, or an assignment.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte.
        source: The word as it is written.
        text: The word without its quotes, each expansion as `EXPANSION`.
        splits: Whether it may become any number of words when the script runs.
    """

    start: int
    end: int
    source: str
    text: str
    splits: bool = False

    @property
    def basename(self) -> str:
        """What follows the last slash."""
        return self.text.rpartition("/")[2]

    @property
    def name(self) -> str:
        """The variable that this assignment sets."""
        return self.text.partition("=")[0].removesuffix("+")

    @property
    def value(self) -> str:
        """What this assignment assigns."""
        return self.text.partition("=")[2]

    @property
    def variables(self) -> frozenset[str]:
        """The variables that it expands."""
        return frozenset(_VARIABLE.findall(self.source))

    @property
    def is_assignment(self) -> bool:
        """Whether it has the form `NAME=value`."""
        return _ASSIGNMENT.match(self.text) is not None

    @property
    def is_static(self) -> bool:
        """Whether its text is known."""
        return EXPANSION not in self.text

    @property
    def is_list(self) -> bool:
        """Whether it stands for all elements of an array or all arguments, even in quotes."""
        return _lists_all(self.source, self.text)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirection with its target."""

    start: int
    end: int
    is_heredoc: bool


Item: TypeAlias = Word | Redirect


@dataclass(frozen=True)
class SimpleCommand:
    """A command with its arguments: what bash runs at once, between two operators or newlines.

    Attributes:
        assignments: The `NAME=value` before the command's name.
        words: The command's name and its arguments, those behind a redirection too.
        redirects: The redirections.
    """

    assignments: tuple[Word, ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]

    @cached_property
    def items(self) -> list[Item]:
        """All its parts, in the order of the file."""
        return sorted((*self.assignments, *self.words, *self.redirects), key=lambda item: item.start)


def read_command(node: tree_sitter.Node, redirects: list[tree_sitter.Node]) -> SimpleCommand:
    """The command at `node`, with the redirections that the parser hangs elsewhere.

    It has no words if all there is are assignments.
    """
    words = _read_words([child for child in node.children if child.type == "command_name"])
    words += _read_words(node.children_by_field_name("argument"))
    assignments = [read_word(child) for child in node.children if child.type == "variable_assignment"]
    found: list[Redirect] = []
    for redirect in [*(child for child in node.children if child.type.endswith("_redirect")), *redirects]:
        target, arguments = _read_redirect(redirect)
        found.append(target)
        words += arguments
    words = _join_touching(sorted(words, key=lambda word: word.start))
    if assignments and words and assignments[-1].end == words[0].start:
        assignments[-1] = _join(assignments[-1], words.pop(0))
        while words and words[0].is_assignment:
            assignments.append(words.pop(0))
    # In `a\` before a line with `2>&1` the parser takes the descriptor for a word.
    descriptors = {word.end: word for word in words if word.source.isdigit()}
    found = [replace(item, start=descriptors.get(item.start, item).start) for item in found]
    starts = {item.start for item in found}
    words = [word for word in words if word.start not in starts]
    return SimpleCommand(tuple(assignments), tuple(words), tuple(sorted(found, key=lambda item: item.start)))


def read_word(node: tree_sitter.Node) -> Word:
    """The word, part of a word, assignment or here-document at `node`."""
    text = _text(node)
    source = source_of(node).lstrip()  # the parser may count the blanks before an expansion to it
    splits = node.type in _UNQUOTED_EXPANSIONS or _lists_all(source, text)
    return Word(node.end_byte - len(source.encode()), node.end_byte, source, text, splits)


def _read_words(nodes: list[tree_sitter.Node]) -> list[Word]:
    """The words at `nodes`.

    Where a word starts and ends is told by the blanks, not by the nodes: the parser reads `$A-$B-c` as `$A-$` and
    `B-c`, and `[ [` as one word.
    """
    parts = [node.children[0] if node.type == "command_name" else node for node in nodes]
    parts = [part for node in parts for part in (node.children if node.type == "concatenation" else [node])]
    return _join_touching([word for part in parts for word in _split_at_blanks(part)])


def _split_at_blanks(node: tree_sitter.Node) -> list[Word]:
    if node.type != "word":
        return [read_word(node)]
    source = node.text or b""
    return [
        Word(node.start_byte + piece.start(), node.start_byte + piece.end(), code, _unescape(code))
        for piece in _WITHOUT_BLANKS.finditer(source)
        for code in [piece.group().decode()]
    ]


def _read_redirect(node: tree_sitter.Node) -> tuple[Redirect, list[Word]]:
    """A redirection, and the arguments behind it: the parser counts all of `> log --a 1` as targets."""
    closing = [child.end_byte for child in node.children if child.type in {">&-", "<&-"}]
    targets = _read_words(node.children_by_field_name("destination"))
    ends = closing or [target.end for target in targets[:1]] or [node.end_byte]
    arguments = targets if closing else targets[1:]
    return Redirect(node.start_byte, ends[0], node.type == "heredoc_redirect"), arguments


def _join_touching(words: list[Word]) -> list[Word]:
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].end == word.start:
            joined[-1] = _join(joined[-1], word)
        else:
            joined.append(word)
    return joined


def _join(left: Word, right: Word) -> Word:
    text = left.text + right.text
    # The cheap question first: the search reads all of a word that may have thousands of parts.
    cut_variable = left.source.endswith("$") and _ENDS_IN_DOLLAR.search(left.source) is not None
    if cut_variable:
        text = left.text.removesuffix("$") + EXPANSION + re.sub(r"^\w+", "", right.text)
    splits = left.splits or right.splits or cut_variable
    return Word(left.start, right.end, left.source + right.source, text, splits)


def _lists_all(source: str, text: str) -> bool:
    return EXPANSION in text and _ALL_ELEMENTS.search(source) is not None


def _text(node: tree_sitter.Node) -> str:
    """What bash makes of `node`, each expansion as `EXPANSION`."""
    text = source_of(node).lstrip()
    match node.type:
        case "concatenation" | "variable_assignment":
            text = "".join(_text(child) for child in node.children)
        case "subscript":
            text = text.partition("[")[0]
        case "raw_string":
            text = text[1:-1]
        case "string":
            text = _string_text(node)
        case "number" | "variable_name" | "heredoc_body":
            pass
        case kind if kind == "word" or not node.is_named:
            text = _unescape(text)
        case _:
            text = EXPANSION
    return text


def _unescape(code: str) -> str:
    return re.sub(r"\\(?:\n|(.))", r"\1", code)


def _string_text(node: tree_sitter.Node) -> str:
    """The text between double quotes. The parser counts the blanks before an expansion to it."""
    source = node.text or b""
    for child in reversed(node.named_children):
        if child.type != "string_content":
            end = child.end_byte - node.start_byte
            start = end - len((child.text or b"").lstrip())
            source = source[:start] + EXPANSION.encode() + source[end:]
    return re.sub(r'\\(?:\n|([$`"\\]))', r"\1", source.decode()[1:-1])


def source_of(node: tree_sitter.Node) -> str:
    """The text of `node` as it is written."""
    return (node.text or b"").decode()
