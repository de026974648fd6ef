from __future__ import annotations

from glmpatch.machine.boxes import Column, draw_table, to_ascii


def table(width: int, *columns: Column) -> list[str]:
    return [line.rstrip() for line in draw_table(columns, width)]


def column(group: str, first: str, *second: str) -> Column:
    return Column(group, ({"one": [first], "none": []}, {"more": list(second)}))


def test_groups_side_by_side() -> None:
    columns = column("left", "1", "a", "b"), column("left", "2", "c"), column("right", "12345678", "")
    assert table(60, *columns) == [
        "     ┌ left ────┬──────────┐ ┌ right ───┐",
        "one  │ 1        │ 2        │ │ 12345678 │",
        "     ├──────────┼──────────┤ ├──────────┤",
        "more │ a        │ c        │ │          │",
        "     │ b        │          │ │          │",
        "     └──────────┴──────────┘ └──────────┘",
    ]
    assert [line[5:] for line in table(39, *columns) if "─ " in line or "┌" in line] == [
        "┌ left ────┬──────────┐",
        "┌ right ───┐",
    ]


def test_a_wide_group_is_cut_into_equal_pieces() -> None:
    pieces = table(30, *(column("four", str(number), "12345") for number in range(4)))
    assert [line for line in pieces if line.startswith("one")] == ["one  │ 0     │ 1     │", "one  │ 2     │ 3     │"]


def test_a_list_is_folded_behind_a_comma_and_nothing_else() -> None:
    drawn = table(0, column("g", "a 0-3,5,7-9,12", "no list"))
    assert drawn[1:5] == ["one  │ a 0-3,  │", "     │   5,    │", "     │   7-9,  │", "     │   12    │"]
    assert drawn[6] == "more │ no list │"
    assert table(18, column("g", "a 0-3,5,7-9,12"))[1:3] == ["one │ a 0-3,5,   │", "    │   7-9,12   │"]


def test_ascii() -> None:
    drawn = table(20, column("g", "1", "2"))
    assert to_ascii("\n".join(drawn)).splitlines() == [
        "     + g -+",
        "one  | 1  |",
        "     +----+",
        "more | 2  |",
        "     +----+",
    ]
