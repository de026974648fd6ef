"""What `requirements` promises: each pin is there as it was asked for, and each other line as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple, Protocol

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from glmpatch.checking.postconditions.broken import Broken, Edited

_COMMENT = re.compile(r"(?:^|\s)#.*")
_OPTIONS = re.compile(r"\s--?[a-z].*")


class _Parameters(Protocol):
    pins: Mapping[str, str]


class _Line(NamedTuple):
    """A line, with those that it continues on: its number, its text, its comment and what it requires."""

    number: int
    text: str
    comment: str
    requirement: Requirement | None


def find_broken(edited: Edited, transform: _Parameters) -> Iterator[Broken]:
    """Find a pin that is not there, and a line that is not what it was."""
    pins: dict[str, str] = {canonicalize_name(name): specifier for name, specifier in transform.pins.items()}
    before, after = list(_lines(edited.before)), list(_lines(edited.after))
    for line in after:
        specifier = pins.get(_name(line))
        if specifier and line.requirement and line.requirement.specifier != SpecifierSet(specifier):
            yield Broken(f"{line.requirement.name}{specifier}", line.text, line.number)
    there = {_name(line) for line in before}
    added = [line for line in after[_count(before) :] if line.text or line.comment]
    missing = sorted(name for name in pins if name not in there)
    found = [_name(line) for line in added]
    if sorted(found) != missing:
        yield Broken(f"new lines for: {', '.join(missing) or 'nothing'}", ", ".join(found) or "none")
    for line in added:
        specifiers = SpecifierSet(pins.get(_name(line), ""))
        if line.requirement is None or line.requirement.specifier != specifiers or line.comment:
            yield Broken("new lines with the pins alone", line.text, line.number)
    for old, new in zip_longest(before[: _count(before)], after[: _count(before)]):
        if new is None or _essence(old, pins) != _essence(new, pins):
            yield Broken(f"the line {old.text or old.comment}", new.text if new else "none", new and new.number)
            return


def _count(lines: list[_Line]) -> int:
    """The number of lines, without the nothing behind the last line ending."""
    return len(lines) - (not lines[-1].text and not lines[-1].comment)


def _lines(text: str) -> Iterator[_Line]:
    number, joined = 1, ""
    physical = text.split("\n")
    for index, line in enumerate(physical):
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment and index + 1 < len(physical):
            joined += line[:-1]
            continue
        joined += line
        match = _COMMENT.search(joined)
        comment = match.group().strip() if match else ""
        code = _COMMENT.sub("", joined).strip()
        yield _Line(number, code, comment, _requirement(code))
        number, joined = index + 2, ""


def _requirement(code: str) -> Requirement | None:
    try:
        return Requirement(_OPTIONS.sub("", code))
    except InvalidRequirement:
        return None


def _name(line: _Line) -> str:
    return canonicalize_name(line.requirement.name) if line.requirement else ""


def _essence(line: _Line, pins: Mapping[str, str]) -> tuple[object, ...]:
    """What of a line must stay: all of it, but for the version of a pin."""
    requirement = line.requirement
    if requirement is None or not pins.get(_name(line)):
        return line.text, line.comment
    options = _OPTIONS.search(line.text)
    kept = (requirement.name, sorted(requirement.extras), str(requirement.marker), requirement.url)
    return (*kept, options.group() if options else "", line.comment)
