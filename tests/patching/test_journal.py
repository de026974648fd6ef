from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.checkout import merge
from glmpatch.errors import EnvironmentLacksError, TreeError
from glmpatch.patching.journal import Change, Journal, undo


def never(current: bytes, base: bytes, other: bytes) -> bytes | None:
    raise AssertionError((current, base, other))


def meets(current: bytes, base: bytes, other: bytes) -> bytes | None:  # noqa: ARG001 - the signature of a merge
    return None


def test_layers_come_back_newest_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.layers() == []
    first, second = {"a": Change(b"\x00\xff", b"1")}, {"a": Change(b"1", b"2"), "b": Change(b"", b"x")}
    journal.push(first)
    journal.push(second)
    assert journal.layers() == [second, first]
    journal.clear()
    assert journal.layers() == []
    assert not (tmp_path / "journal").exists()


def test_the_rest_of_a_layer_is_no_layer_of_its_own(tmp_path: Path) -> None:
    """A killed run has written one of its two files; the second run plans the other alone."""
    journal = Journal(tmp_path)
    journal.push({"a": Change(b"0", b"1"), "b": Change(b"0", b"1")})
    journal.push({"b": Change(b"0", b"1")})
    assert len(journal.layers()) == 1
    journal.push({"b": Change(b"mine", b"1")})
    assert len(journal.layers()) == 2


def test_a_layer_that_the_user_deleted_is_not_overwritten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.push({"a": Change(b"%d" % number, b"%d" % (number + 1))})
    (tmp_path / "0001.json").unlink()
    journal.push({"a": Change(b"3", b"4")})
    assert [layer["a"].after for layer in journal.layers()] == [b"4", b"3", b"2"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(EnvironmentLacksError, match=r"cannot write .*0001\.json"):
        Journal(tmp_path / "journal").push({"a": Change(b"0", b"1")})


def test_clear_takes_the_newest_layer_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill in the middle leaves must be layers that undo finds taken back: the oldest ones."""
    journal = Journal(tmp_path)
    journal.push({"a": Change(b"0", b"1")})
    journal.push({"a": Change(b"1", b"2")})
    gone: list[str] = []
    unlink = Path.unlink

    def watched(self: Path) -> None:
        gone.append(self.name)
        unlink(self)

    monkeypatch.setattr(Path, "unlink", watched)
    journal.clear()
    assert gone == ["0002.json", "0001.json"]


def test_a_folder_that_cannot_be_cleared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.push({"a": Change(b"0", b"1")})

    def fail(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(EnvironmentLacksError, match=r"0001\.json: Permission denied"):
        journal.clear()


def test_undo_gives_the_oldest_bytes_back() -> None:
    layers = [{"a": Change(b"1", b"2"), "b": Change(b"x", b"y")}, {"a": Change(b"0", b"1")}]
    assert undo({"a": b"2", "b": b"y"}, layers, never) == {"a": b"0", "b": b"x"}


@pytest.mark.parametrize("state", [b"0", b"1", b"2"])
def test_undo_goes_on_where_a_killed_one_stopped(state: bytes) -> None:
    layers = [{"a": Change(b"1", b"2")}, {"a": Change(b"0", b"1")}]
    assert undo({"a": state}, layers, never).get("a", state) == b"0"


def test_undo_of_a_circle() -> None:
    """bf16, fp32, bf16 again: the bytes tell the state, not the number of layers."""
    layers = [{"a": Change(b"fp32", b"bf16")}, {"a": Change(b"bf16", b"fp32")}, {"a": Change(b"", b"bf16")}]
    assert undo({"a": b"bf16"}, layers, never) == {"a": b""}


def test_all_lost_files_are_named_and_nothing_is_given() -> None:
    layers = [{name: Change(b"0", b"1") for name in "abc"}]
    with pytest.raises(TreeError, match="same lines: a, c"):
        undo({"a": b"mine", "b": b"1", "c": None}, layers, meets)


def test_merge_keeps_what_the_user_changed_elsewhere() -> None:
    base = b"".join(b"line %d\r\n" % number for number in range(9))
    patched = base.replace(b"line 1", b"patched")
    mine = patched.replace(b"line 7", b"mine") + b"no newline"
    layers = [{"a": Change(base, patched)}]
    assert undo({"a": mine}, layers, merge) == {"a": base.replace(b"line 7", b"mine") + b"no newline"}


states = st.lists(st.binary(max_size=3), min_size=1, max_size=6)


@given(st.data(), states)
def test_undo_finds_the_way_back_from_every_state(data: st.DataObject, chain: list[bytes]) -> None:
    """Whatever was written before a kill, all layers together lead to where the first one started."""
    layers = [{"a": Change(before, after)} for before, after in pairwise(chain) if before != after][::-1]
    if layers:
        current = data.draw(st.sampled_from(chain))
        assert undo({"a": current}, layers, never).get("a", current) == chain[0]
