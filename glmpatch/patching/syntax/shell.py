r"""Bash through tree-sitter: read a script, list its simple commands, and edit it by byte span.

All offsets are into `ShellFile.text`: the file with LF line endings and a last newline. A file with CRLF is read as if
it had LF, because the grammar takes `\` before CRLF for a continuation and bash does not. Replacements are mapped back
to the bytes of the file as it was.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NoReturn

import tree_sitter
import tree_sitter_bash

from glmpatch.patching.model import Refusal, Replacement
from glmpatch.patching.syntax.shell_words import SimpleCommand, Word, read_command, read_word, source_of

_CONTINUATION = b"\\\n"
_GAP = re.compile(rb"(?:[ \t]|\\\n)*")
_BATCH = re.compile(rb"(?im)^[ \t]*@echo\b|^[ \t]*set[ \t]+[a-z_]\w*=|\^[ \t]*$|(?-i:%[A-Z][A-Z0-9_]{2,}%)")
_UNREADABLE = re.compile(rb"\r(?!\n)|\0")
_PAIR = 2
_DECLARING = frozenset({"declare", "export", "local", "readonly", "typeset"})
_ENDS_COMMAND = b" \t\n;|&<>()"


class ShellFile:
    """A parsed bash script.

    Args:
        data: The file, in UTF-8, without a byte order mark.

    Attributes:
        text: The file with LF line endings and a last newline.
        commands: All simple commands, in the order of the file, those in functions and substitutions too.
        assignments: The assignments that are commands of their own, or arguments of `export` and the like.
        heredocs: The bodies of all here-documents.
        functions: The names of the functions that the script defines.

    Raises:
        Refusal: The file is a batch file, or cannot be parsed.
    """

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        returns = [match.start() for match in re.finditer(rb"\r\n", data)]
        self._returns = [offset - index for index, offset in enumerate(returns)]
        self.text = data.replace(b"\r\n", b"\n")
        if not self.text.endswith(b"\n"):
            self.text += b"\n"
        self._require_bash()
        root = _parse(self.text + b"\n")  # the parser does not take a continuation at the end of a file
        self._require_no_error(root)
        self._read(root)

    @property
    def has_crlf(self) -> bool:
        """Whether any line ends in CRLF."""
        return bool(self._returns)

    def line_at(self, offset: int) -> int:
        """The 1-based line of an offset."""
        return self.text.count(b"\n", 0, offset) + 1

    def refuse(self, offset: int, expected: str, hint: str = "") -> NoReturn:
        """Give up on the file because of what stands at `offset`."""
        line = self.line_at(offset)
        raise Refusal(expected, self.text.decode().split("\n")[line - 1].strip(), hint=hint, line=line)

    def require_plain_gaps(self, command: SimpleCommand) -> None:
        r"""Refuse a command that bash would split into other words than the parser did.

        The parser takes `\` before a blank for white space, where bash has a word of one blank; it ends a word at `\`
        before a newline, where bash goes on with the next line; and it reads `` `a` `b` `` as one word.
        """
        for word in command.words:
            if word.source.count("`") > _PAIR:
                self.refuse(word.start, "at most one command in backticks in a word", hint="use $(...) in their place")
        for left, right in pairwise(command.items):
            gap = self.text[left.end : right.start]
            if not _GAP.fullmatch(gap):
                self._refuse_backslash(left.end)
            if gap and not gap.replace(_CONTINUATION, b""):
                self._refuse_joined(left.end)
        end = command.items[-1].end
        behind = self._gap_behind(end)
        follower = self.text[end + len(behind) :][:1]
        if follower == b"\\":
            self._refuse_backslash(end + len(behind))
        if behind and not behind.replace(_CONTINUATION, b"") and follower and follower not in _ENDS_COMMAND:
            self._refuse_joined(end)

    def replace(self, start: int, end: int, code: str) -> Replacement:
        """Put `code`, which has no line ending, in the place of `[start, end)`."""
        return Replacement(self._offset(start), self._offset(end), code.encode())

    def remove(self, command: SimpleCommand, first: Word, last: Word) -> Replacement:
        """Take away the words from `first` to `last`, neither of them the first of `command`, and the gap before."""
        place = bisect_left(command.items, first.start, key=lambda item: item.start) - 1
        while command.items[place].end > first.start:
            place -= 1
        return self.replace(command.items[place].end, last.end, "")

    def remove_prefix(self, command: SimpleCommand, word: Word) -> Replacement:
        """Take away a word that is not the last of `command`, and the gap behind it."""
        end = min(item.start for item in command.items if item.start >= word.end)
        return self.replace(word.start, end, "")

    def append(self, command: SimpleCommand, words: list[str]) -> Replacement:
        """Put words behind the last word of `command`, each on a line of its own if its last option is."""
        options = [word for word in command.words[1:] if word.text.startswith("-")]
        joiner = self._joiner_before(options[-1] if options else command.words[-1])
        return self.replace(command.words[-1].end, command.words[-1].end, "".join(joiner + word for word in words))

    def _joiner_before(self, word: Word) -> str:
        line_start = self.text.rfind(b"\n", 0, word.start) + 1
        indent = self.text[line_start : word.start]
        if indent.strip() or not self.text.endswith(_CONTINUATION, 0, line_start):
            return " "
        return " \\" + self._newline_at(line_start - 1) + indent.decode()

    def _newline_at(self, offset: int) -> str:
        index = bisect_left(self._returns, offset)
        return "\r\n" if self._returns[index : index + 1] == [offset] else "\n"

    def _offset(self, offset: int) -> int:
        """The offset in the file as it was."""
        return min(offset + bisect_left(self._returns, offset), self._size)

    def _gap_behind(self, offset: int) -> bytes:
        match = _GAP.match(self.text, offset)
        return match.group() if match else b""

    def _refuse_backslash(self, offset: int) -> NoReturn:
        self.refuse(
            offset,
            "a backslash only as the last character of a line",
            hint="take away the white space behind the backslash",
        )

    def _refuse_joined(self, offset: int) -> NoReturn:
        self.refuse(
            offset,
            "white space between two words",
            hint="bash joins this word with the start of the next line: put a blank before the backslash",
        )

    def _require_bash(self) -> None:
        if match := _BATCH.search(self.text):
            self.refuse(
                match.start(), "a bash script", hint="this is a Windows batch file: run the training from the .sh file"
            )
        if match := _UNREADABLE.search(self.text):
            self.refuse(match.start(), "a text file with LF or CRLF line endings")

    def _require_no_error(self, root: tree_sitter.Node) -> None:
        if not root.has_error:
            return
        error = next((node for node in _walk(root) if node.is_error or node.is_missing), root)
        start = min(error.end_byte - len((error.text or b"").lstrip()), len(self.text.rstrip()))
        self.refuse(start, "a file that bash can parse", hint="see what `bash -n` says about it")

    def _read(self, root: tree_sitter.Node) -> None:
        nodes = list(_walk(root))
        redirects = _redirects_by_end_of_command(nodes)
        commands: list[SimpleCommand] = []
        assignments = [
            read_word(node)
            for node in nodes
            if node.type == "variable_assignment" and node.parent and node.parent.type != "command"
        ]
        for node in nodes:
            if node.type == "command":
                command, before = self._split_off_assignments(read_command(node, redirects.get(node.end_byte, [])))
                assignments += before + _declared(command)
                if command.words:
                    commands.append(command)
        self.commands = tuple(commands)
        self.assignments = tuple(sorted(assignments, key=lambda word: word.start))
        self.heredocs = tuple(read_word(node) for node in nodes if node.type == "heredoc_body")
        names = (node.child_by_field_name("name") for node in nodes if node.type == "function_definition")
        self.functions = frozenset(source_of(name) for name in names if name)

    def _split_off_assignments(self, command: SimpleCommand) -> tuple[SimpleCommand, list[Word]]:
        """Set apart the assignments of an earlier line: the parser runs `A=1 B=2` on into the next line."""
        if not command.words:
            return command, list(command.assignments)
        ends = [
            index + 1
            for index, (left, right) in enumerate(pairwise((*command.assignments, command.words[0])))
            if b"\n" in self.text[left.end : right.start].replace(_CONTINUATION, b"")
        ]
        count = max(ends, default=0)
        own = SimpleCommand(command.assignments[count:], command.words, command.redirects)
        return own, list(command.assignments[:count])


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _parse(text: bytes) -> tree_sitter.Node:
    return _parser().parse(text).root_node


def _walk(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """`root` and all nodes below it, in the order of the file."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _redirects_by_end_of_command(nodes: list[tree_sitter.Node]) -> dict[int, list[tree_sitter.Node]]:
    """The redirections of each command: the parser hangs those of `a && b > log` on the whole list."""
    found: dict[int, list[tree_sitter.Node]] = {}
    for node in nodes:
        body = node.child_by_field_name("body") if node.type == "redirected_statement" else None
        if body:
            found[body.end_byte] = node.children_by_field_name("redirect")
    return found


def _declared(command: SimpleCommand) -> list[Word]:
    if not command.words or command.words[0].text not in _DECLARING:
        return []
    return [word for word in command.words[1:] if word.is_assignment]
