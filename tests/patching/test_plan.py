from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping

import pytest

from glmpatch.assets import asset_folder
from glmpatch.patching.model import (
    Absent,
    AlreadyDone,
    Backend,
    Changed,
    Conflict,
    Edit,
    Options,
    Refusal,
    Rewrite,
)
from glmpatch.patching.plan import LARGEST_FILE, Plan, State, make_plan
from glmpatch.patching.series import Series, load_series
from tests.engine_support import SERIES, STUBBORN, Swap, patch
from tests.git_support import UPSTREAM


class Memory:
    """A tree of bytes; None for what is no plain file."""

    def __init__(self, files: Mapping[str, bytes | None]) -> None:
        self.files = files
        self.reads: list[str] = []

    def paths(self) -> Iterable[str]:
        return self.files

    def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        data = self.files.get(path)
        if data is None and path in self.files:
            raise Refusal("a file", "a link")
        return data


def plan_of(series: Series, files: Mapping[str, bytes | None]) -> Plan:
    return make_plan(series, Memory(files))


def swap(path: str, old: str = "old", new: str = "new", *, optional: bool = False) -> Edit:
    return Edit(path, Swap(old=old, new=new), optional)


def test_a_plan_is_repeatable_and_leaves_the_tree_alone() -> None:
    tree = Memory(dict(UPSTREAM))
    first, second = make_plan(SERIES, tree), make_plan(SERIES, tree)
    assert first == second
    assert tree.files == UPSTREAM
    assert first.before["ptuning/main.py"] == UPSTREAM["ptuning/main.py"]
    assert not first.done


def test_planning_on_the_result_finds_all_done() -> None:
    plan = plan_of(SERIES, UPSTREAM)
    again = plan_of(SERIES, {**UPSTREAM, **plan.after})
    assert again.done
    assert again.before == {}
    assert {result.state for result in again.patches} == {State.APPLIED}


def test_a_later_patch_sees_what_an_earlier_one_made() -> None:
    series = Series((patch("one", swap("a", "1", "2")), patch("two", swap("a", "2", "3"), swap("a", "3", "4"))))
    plan = plan_of(series, {"a": b"1"})
    assert plan.before == {"a": b"1"}
    assert [result.files for result in plan.patches] == [{"a": b"2"}, {"a": b"4"}]
    assert plan.after == {"a": b"4"}


def test_a_file_is_read_once() -> None:
    tree = Memory(dict(UPSTREAM))
    make_plan(SERIES, tree)
    assert sorted(tree.reads) == sorted({*tree.reads})


def test_every_patch_is_tried_behind_a_conflict() -> None:
    plan = plan_of(STUBBORN, UPSTREAM)
    assert [result.state for result in plan.patches] == [State.PENDING, State.CONFLICT, State.PENDING]
    assert [edit.path for edit in plan.conflicts] == ["README.md"]
    assert not plan.done


def test_a_missing_file_is_a_conflict_unless_it_is_optional() -> None:
    plan = plan_of(Series((patch("p", swap("gone"), swap("gone_too", optional=True)),)), {})
    first, second = (edit.outcome for edit in plan.edits)
    assert isinstance(first, Conflict)
    assert first.found == "no such file"
    assert isinstance(second, Absent)


def test_what_the_tree_refuses_is_a_conflict() -> None:
    (edit,) = plan_of(Series((patch("p", swap("a", optional=True)),)), {"a": None}).edits
    assert edit.outcome == Conflict("a file", "a link")


def test_a_file_that_is_too_large_for_source_code_is_a_conflict() -> None:
    series = Series((patch("p", swap("a.py")),))
    assert not plan_of(series, {"a.py": b"old".ljust(LARGEST_FILE)}).conflicts
    (conflict,) = plan_of(series, {"a.py": b"old".ljust(LARGEST_FILE + 1)}).conflicts
    assert isinstance(conflict.outcome, Conflict)
    assert "400,000 bytes" in conflict.outcome.expected


def test_a_glob_stays_in_its_folder() -> None:
    files = dict.fromkeys(["web_a.py", "web_b.py", "sub/web_c.py", "web_d.txt", "Web_e.py"], b"old")
    plan = plan_of(Series((patch("p", swap("web_*.py")),)), files)
    assert [edit.path for edit in plan.edits] == ["web_a.py", "web_b.py"]


@pytest.mark.parametrize("optional", [True, False])
def test_a_glob_that_matches_nothing_is_reported(optional: bool) -> None:
    (edit,) = plan_of(Series((patch("p", swap("web_*.py", optional=optional)),)), {}).edits
    assert edit.path == "web_*.py"
    assert isinstance(edit.outcome, Absent if optional else Conflict)


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"a": b"old", "b": b"old"}, State.PENDING),
        ({"a": b"old", "b": b"new"}, State.PARTIAL),
        ({"a": b"new", "b": b"new"}, State.APPLIED),
        ({"a": b"new"}, State.APPLIED),
        ({"a": b"old"}, State.PENDING),
        ({}, State.ABSENT),
        ({"a": b"old", "b": b"neither"}, State.CONFLICT),
    ],
)
def test_the_state_of_a_patch(files: dict[str, bytes], state: State) -> None:
    series = Series((patch("p", swap("a", optional=True), swap("b", optional=True)),))
    assert plan_of(series, files).patches[0].state is state


def test_a_byte_order_mark_survives() -> None:
    plan = plan_of(Series((patch("p", swap("a")),)), {"a": codecs.BOM_UTF8 + b"old\r\n\tx"})
    assert plan.after == {"a": codecs.BOM_UTF8 + b"new\r\n\tx"}
    assert isinstance(plan_of(Series((patch("p", swap("a")),)), plan.after).edits[0].outcome, AlreadyDone)


def test_a_change_that_another_patch_takes_back_is_still_a_change() -> None:
    series = Series((patch("one", swap("a", "1", "2")), patch("two", swap("a", "2", "1"))))
    plan = plan_of(series, {"a": b"1"})
    assert all(isinstance(edit.outcome, Changed) for edit in plan.edits)
    assert plan.after == {"a": b"1"}


def test_there_and_back_is_planned_like_any_change() -> None:
    plan = plan_of(Series((patch("there", swap("a", "1", "2")), patch("back", swap("a", "2", "1")))), {"a": b"1"})
    assert [result.files for result in plan.patches] == [{"a": b"2"}, {"a": b"1"}]
    assert (plan.before, plan.after) == ({"a": b"1"}, {"a": b"1"})


def test_edits_apart_are_planned_on_the_file_as_it_was_read() -> None:
    seen: list[bytes] = []

    class Watch(Swap, frozen=True, kw_only=True, forbid_unknown_fields=True):
        def rewrite(self, data: bytes) -> Rewrite:
            seen.append(data)
            return super().rewrite(data)

    data = b"first\nsecond\nthird\n"
    edits = [Edit("a", Watch(old=word, new=word.upper() * 2)) for word in ("first", "third", "second")]
    plan = plan_of(Series(tuple(patch(str(number), edit) for number, edit in enumerate(edits))), {"a": data})
    assert seen == [data] * 3
    assert plan.after == {"a": b"FIRSTFIRST\nSECONDSECOND\nTHIRDTHIRD\n"}
    assert plan.patches[1].files == {"a": b"FIRSTFIRST\nsecond\nTHIRDTHIRD\n"}


def test_an_edit_that_touches_an_earlier_one_sees_its_result() -> None:
    series = Series((patch("one", swap("a", "b", "BB")), patch("two", swap("a", "c", "BBc"))))
    plan = plan_of(series, {"a": b"abcd"})
    assert plan.after == {"a": b"aBBcd"}
    assert [type(edit.outcome) for edit in plan.edits] == [Changed, AlreadyDone]


def test_a_conflict_behind_a_change_has_the_line_of_the_file() -> None:
    class Grow(Swap, frozen=True, kw_only=True, forbid_unknown_fields=True):
        def rewrite(self, data: bytes) -> Rewrite:
            if b"half" in data:
                raise Refusal("float", "half", line=data[: data.index(b"half")].count(b"\n") + 1)
            return super().rewrite(data)

    series = Series(
        (patch("one", swap("a", "import", "import\nimport\nimport")), patch("two", Edit("a", Grow(old="", new=""))))
    )
    (conflict,) = plan_of(series, {"a": b"import\nhalf\n"}).conflicts
    assert isinstance(conflict.outcome, Conflict)
    assert conflict.outcome.line == 2


@pytest.mark.parametrize("backend", ["mpi", "gloo"])
def test_the_series_at_once_is_the_series_one_by_one(backend: Backend) -> None:
    root = asset_folder("templates") / "demo" / "upstream"
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    series = load_series(Options(backend=backend))
    at_once, one_by_one = plan_of(series, files), dict(files)
    for each, result in zip(series.patches, at_once.patches, strict=True):
        step = plan_of(Series((each,)), one_by_one)
        assert step.after == result.files
        one_by_one.update(step.after)
    assert {**files, **at_once.after} == one_by_one
