"""C++ through tree-sitter: find where a name is used, read the code around it, and edit it by byte span.

The parser knows no preprocessor. So it reads the file with blanks in the place of comments and directives, which keeps
every offset: the code of all branches of an `#if` is one text then, and the body of a macro is none. What else a macro
hides leaves an error in the tree. One that encloses or interrupts code that is read here is refused. Any other is
harmless: a replacement stays inside of an expression that was read as a whole, or stands behind a whole declaration,
and changes no byte besides.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cache
from typing import NoReturn

import tree_sitter
import tree_sitter_cpp

from glmpatch.patching.model import Refusal, Replacement

# What does not end, ends with its line or with the file: so no byte is looked at twice.
_STRING = rb'"(?:\\(?:\r\n|.)|[^"\\\n])*(?:"|(?=\n)|\\?\Z)'
_CHARACTER = _STRING.replace(b'"', b"'")
_LINE_COMMENT = rb"//(?:\\\r?\n|[^\n])*"
_COMMENT = rb"/\*.*?(?:\*/|\Z)"
_TOKEN = re.compile(
    rb"(?P<comment>%b|%b)" % (_LINE_COMMENT, _COMMENT)
    + rb"|(?P<directive>^[ \t]*\#(?:\\\r?\n|%b|%b|%b|[^\n])*)" % (_LINE_COMMENT, _COMMENT, _STRING)
    + rb'|(?P<literal>(?:u8|[uUL])?R"(?P<fence>[^\s()\\"]{0,16})\(.*?(?:\)(?P=fence)"|\Z)|%b|%b)'
    % (_STRING, _CHARACTER)
    # Words, and numbers with the separators that look like the start of a character.
    + rb"|[^\W\d]\w*|\d(?:'?[\w.])*",
    re.MULTILINE | re.DOTALL,
)
_KEYWORD = re.compile(rb"\s*#\s*(\w*)")
_VISIBLE = re.compile(rb"[^\r\n]")
_REST_OF_LINE = re.compile(rb"[ \t]*(?://[^\r\n\\]*)?(?=\r?\n|\Z)")


class CppFile:
    """A parsed C++ source.

    Args:
        data: The file, in UTF-8, without a byte order mark.

    Attributes:
        text: The file, byte for byte.
    """

    def __init__(self, data: bytes) -> None:
        self.text = data
        code, bare = bytearray(data), bytearray(data)
        self._directives: list[tuple[int, int]] = []
        self._depths = [0]  # how many `#if` are open behind so many directives
        for match in _TOKEN.finditer(data):
            kind, (start, end) = match.lastgroup, match.span()
            if kind is None:
                continue
            blanks = _VISIBLE.sub(b" ", match.group())
            bare[start:end] = blanks
            if match["literal"] is None:
                code[start:end] = blanks
            if match["directive"] is not None:
                self._directives.append((start, end))
                self._depths.append(self._depths[-1] + _depth_of(match.group()))
        self._code, self._bare = bytes(code), bytes(bare)
        self._root = _parser().parse(self._code).root_node
        self._errors = list(_error_spans(self._root))

    def line_at(self, offset: int) -> int:
        """The 1-based line of an offset."""
        return self.text.count(b"\n", 0, offset) + 1

    def refuse(self, offset: int, expected: str, hint: str = "") -> NoReturn:
        """Give up on the file because of what stands at `offset`."""
        line = self.line_at(offset)
        raise Refusal(expected, self.text.decode().split("\n")[line - 1].strip(), hint=hint, line=line)

    def source(self, node: tree_sitter.Node) -> str:
        """The code of a node, without comments, on one line and with single spaces."""
        return " ".join(self._code[node.start_byte : node.end_byte].decode().split())

    def find(self, name: str) -> list[tree_sitter.Node]:
        """Each use of an identifier, in the order of the file. Comments and literals are none.

        Raises:
            Refusal: One is in a macro, or where the parser is lost.
        """
        pattern = re.compile(rb"\b%b\b" % name.encode())
        for start, end in self._directives:
            if match := pattern.search(self.text, start, end):
                self.refuse(match.start(), f"{name} in code, not in a directive of the preprocessor")
        found = []
        for match in pattern.finditer(self._bare):
            node = self._root.descendant_for_byte_range(*match.span())
            if node is None or node.byte_range != match.span() or self._is_lost(match.start()):
                self._refuse_error(match.start())
            found.append(node)
        return found

    def require_sound(self, node: tree_sitter.Node) -> None:
        """Refuse a node that the parser did not understand to its end."""
        if node.has_error:
            error = next(inner for inner in _walk(node) if inner.is_error or inner.is_missing)
            self._refuse_error(error.start_byte)

    def is_conditional(self, start: int, end: int) -> bool:
        """Whether more `#if` are open at `end` than at `start`."""
        before, behind = (bisect_left(self._directives, (place, 0)) for place in (start, end))
        return self._depths[behind] > self._depths[before]

    def replace(self, node: tree_sitter.Node, code: str) -> Replacement:
        """Put `code` in the place of a node."""
        return Replacement(node.start_byte, node.end_byte, code.encode())

    def append(self, node: tree_sitter.Node, code: str) -> Replacement:
        """Put `code` right behind a node."""
        return Replacement(node.end_byte, node.end_byte, code.encode())

    def insert_below(self, node: tree_sitter.Node, code: str) -> Replacement:
        """Put lines below those of a node, and below a comment behind it, with the line ending used there."""
        match = _REST_OF_LINE.match(self.text, node.end_byte)
        place = match.end() if match else node.end_byte
        newline = "\r\n" if self.text[: self.text.find(b"\n", place) + 1].endswith(b"\r\n") else "\n"
        return Replacement(place, place, (newline + code.replace("\n", newline)).encode())

    def _is_lost(self, offset: int) -> bool:
        index = bisect_right(self._errors, (offset, len(self.text))) - 1
        return index >= 0 and offset < self._errors[index][1]

    def _refuse_error(self, offset: int) -> NoReturn:
        self.refuse(offset, "C++ that a parser can follow without its macros")


def ancestors(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """The nodes around a node, the closest first."""
    outer = node.parent
    while outer:
        yield outer
        outer = outer.parent


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


def _depth_of(directive: bytes) -> int:
    """What a directive adds to the number of open `#if`."""
    match = _KEYWORD.match(directive)
    keyword = match[1] if match else b""
    return keyword.startswith(b"if") - (keyword == b"endif")


def _error_spans(root: tree_sitter.Node) -> Iterator[tuple[int, int]]:
    """Where the parser was lost: spans that do not overlap, in the order of the file."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error:
            yield node.byte_range
        elif node.has_error:
            stack.extend(reversed(node.children))


def _walk(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """`root` and all nodes below it, in the order of the file."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))
