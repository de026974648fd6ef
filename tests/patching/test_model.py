from __future__ import annotations

import codecs
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.patching.model import (
    AlreadyDone,
    Changed,
    Conflict,
    Refusal,
    Replacement,
    Rewrite,
    Transform,
    replace_spans,
    require_utf8,
)
from tests.engine_support import Swap


def test_insertions_at_one_offset_keep_their_order() -> None:
    replacements = (Replacement(1, 1, b"x"), Replacement(1, 1, b"y"), Replacement(1, 2, b"z"))
    assert replace_spans(b"abc", replacements) == b"axyzc"


def test_touching_replacements_do_not_overlap() -> None:
    assert replace_spans(b"abcd", (Replacement(2, 4, b"Y"), Replacement(0, 2, b"X"))) == b"XY"


@pytest.mark.parametrize("second", [Replacement(1, 3, b""), Replacement(0, 2, b""), Replacement(1, 1, b"")])
def test_overlapping_replacements_are_a_bug(second: Replacement) -> None:
    with pytest.raises(ValueError, match="overlapping"):
        replace_spans(b"abcd", (Replacement(0, 2, b""), second))


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.booleans()), max_size=8), st.randoms())
def test_replace_spans_is_what_joining_the_pieces_is(pieces: list[tuple[bytes, bytes, bool]], random: object) -> None:
    replacements: list[Replacement] = []
    offset = 0
    for old, new, change in pieces:
        if change and old:
            replacements.append(Replacement(offset, offset + len(old), new))
        offset += len(old)
    random.shuffle(replacements)  # type: ignore[attr-defined]
    data = b"".join(old for old, _, _ in pieces)
    expected = b"".join(new if change and old else old for old, new, change in pieces)
    assert replace_spans(data, tuple(replacements)) == expected


def test_a_transform_says_what_it_did() -> None:
    swap = Swap(old="a", new="b", notice="look")
    changed = swap(b"xax")
    assert isinstance(changed, Changed)
    assert changed.data == b"xbx"
    assert [notice.message for notice in changed.notices] == ["look"]
    assert isinstance(swap(changed.data), AlreadyDone)
    assert swap(b"x") == Conflict("a", "no such text", "look for it", 1)


def test_a_file_that_is_not_utf8_is_refused_with_its_line() -> None:
    outcome = Swap(old="a", new="b")("a\n中\n".encode() + b"\xff\n")
    assert isinstance(outcome, Conflict)
    assert (outcome.line, outcome.found) == (3, "byte 0xff at offset 6")


@given(st.binary())
def test_require_utf8_refuses_what_python_cannot_decode(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(Refusal):
            require_utf8(data)
    else:
        require_utf8(data)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_failed_merge_is_refused_with_its_line(newline: str) -> None:
    lines = ["a", "<<<<<<< HEAD", "a", "=======", "a", ">>>>>>> 292b568", ""]
    outcome = Swap(old="a", new="b")(newline.join(lines).encode())
    assert isinstance(outcome, Conflict)
    assert (outcome.line, outcome.found) == (2, "<<<<<<< HEAD")


@pytest.mark.parametrize("code", ["a\n=======\n", "a\n<<<<<<< x\n", "a  # <<<<<<< x\n>>>>>>> y\n", "a << c >> d\n"])
def test_what_looks_like_a_failed_merge_is_edited(code: str) -> None:
    assert isinstance(Swap(old="a", new="b")(code.encode()), Changed)


def test_endless_nesting_is_a_conflict() -> None:
    class Deep(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
        name: ClassVar[str] = "deep"

        def rewrite(self, data: bytes) -> Rewrite:
            return self.rewrite(data)

    outcome = Deep()(b"")
    assert isinstance(outcome, Conflict)
    assert "nested" in outcome.found


def test_parameters_are_checked_and_cannot_be_changed() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `other`"):
        msgspec.convert({"old": "a", "new": "b", "other": 1}, Swap)
    with pytest.raises(AttributeError):
        Swap(old="a", new="b").old = "c"  # type: ignore[misc]


def test_a_byte_order_mark_is_no_text_of_a_transform() -> None:
    assert isinstance(Swap(old=codecs.BOM_UTF8.decode(), new="x")(b"a"), Conflict)
