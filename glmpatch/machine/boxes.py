"""Tables drawn with lines: columns in groups, the groups side by side as far as there is room."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import TypeAlias

INDENT = "  "
_ASCII = str.maketrans("┌┬┐├┼┤└┴┘─│", "+++++++++-|")

# For each row, by its label, the lines in it.
Rows: TypeAlias = dict[str, list[str]]
_Piece: TypeAlias = Sequence["Column"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        group: The title of its group.
        sections: Its rows; a line is drawn between two sections. All columns have the same labels.
    """

    group: str
    sections: tuple[Rows, ...]


def draw_table(columns: Sequence[Column], width: int) -> list[str]:
    """The lines of the table. A row that is empty in all columns is left out.

    Args:
        columns: Those of a group one after the other.
        width: How long a line may be. One column and its labels may need more.
    """
    filled = [
        (label, line)
        for column in columns
        for rows in column.sections
        for label, lines in rows.items()
        for line in lines
    ]
    margin = max(len(label) for label, _ in filled) + 1
    largest = max(Counter(column.group for column in columns).values())
    # A long list is folded for the columns of a group to stand side by side, but only between its parts.
    cell = max(
        min(max(len(line) for _, line in filled), (width - margin - 1) // largest - 3),
        *(len(part) + len(INDENT) * (at > 0) for _, line in filled for at, part in enumerate(_parts(line))),
        *(len(column.group) + 1 for column in columns),
    )
    return [line for strip in _strips(columns, width - margin, cell) for line in _draw_strip(strip, margin, cell)]


def to_ascii(text: str) -> str:
    """The text with its lines made of `+-|`."""
    return text.translate(_ASCII)


def _strips(columns: Sequence[Column], width: int, cell: int) -> Iterator[list[_Piece]]:
    """What stands side by side: whole groups, and the pieces of one that is too wide, about equally long."""
    room = max(1, (width - 1) // (cell + 3))
    strip: list[_Piece] = []
    for _, group in groupby(columns, lambda column: column.group):
        whole = list(group)
        length = math.ceil(len(whole) / math.ceil(len(whole) / room))
        for start in range(0, len(whole), length):
            piece = whole[start : start + length]
            if strip and sum(len(each) * (cell + 3) + 2 for each in (*strip, piece)) - 1 > width:
                yield strip
                strip = []
            strip.append(piece)
    yield strip


def _draw_strip(pieces: Sequence[_Piece], margin: int, cell: int) -> Iterator[str]:
    blank = " " * margin
    yield blank + " ".join(_title(piece, cell) for piece in pieces)
    for number, section in enumerate(pieces[0][0].sections):
        if number:
            yield blank + " ".join(_border("├┼┤", piece, cell) for piece in pieces)
        for label in section:
            folded = [_fold(column.sections[number][label], cell) for piece in pieces for column in piece]
            for at, texts in enumerate(zip_longest(*folded, fillvalue="")):
                cells = (text.ljust(cell) for text in texts)
                rows = (" │ ".join(itertools.islice(cells, len(piece))) for piece in pieces)
                yield f"{'' if at else label:<{margin}}" + " ".join(f"│ {row} │" for row in rows)
    yield blank + " ".join(_border("└┴┘", piece, cell) for piece in pieces)


def _title(piece: _Piece, cell: int) -> str:
    title = f"┌ {piece[0].group} "
    return title + _border("┌┬┐", piece, cell)[len(title) :]


def _border(corners: str, piece: _Piece, cell: int) -> str:
    return corners[0] + corners[1].join(["─" * (cell + 2)] * len(piece)) + corners[2]


def _fold(lines: Sequence[str], cell: int) -> list[str]:
    """The lines, each broken behind commas."""
    folded: list[str] = []
    for line in lines:
        rest = ""
        for part in _parts(line):
            if rest and len(rest + part) > cell:
                folded.append(rest)
                rest = INDENT
            rest += part
        folded.append(rest)
    return folded


def _parts(line: str) -> list[str]:
    return re.split("(?<=,)", line)
