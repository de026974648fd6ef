"""The versions in a requirements file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from glmpatch.patching.model import Notice, Refusal, Replacement, Rewrite, Transform

_PHYSICAL_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
_COMMENT_LINE = re.compile(rb"\s*#")
_COMMENT = re.compile(rb"(?:^|\s)#.*")
_OPTIONS_BEHIND = re.compile(rb"\s--?[a-z].*")
_NAME_AND_VERSION = re.compile(rb"(?P<name>\s*[\w.-]+(?:\s*\[[^\]]*\])?)\s*\(?\s*(?P<version>[^;()]*)")
_EDITABLE = (b"-e", b"--editable")
_INCLUDE = (b"-r", b"--requirement", b"-c", b"--constraint")


class Requirements(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pin versions, and add the packages that are missing. Every other line stays as it is.

    Args:
        pins: The specifier for each package, such as `==4.28.0` or `<2`. With an empty one the package need only
            be there: a specifier that stands in the file stays.
    """

    name: ClassVar[str] = "requirements"

    pins: dict[str, str]

    def __post_init__(self) -> None:
        """Raise a `ValueError` for a pin that is no specifier."""
        for specifier in self.pins.values():
            SpecifierSet(specifier)

    def rewrite(self, data: bytes) -> Rewrite:
        """Replace the specifiers of the pinned packages, and append those that no line names."""
        lines = list(_logical_lines(data))
        named: dict[str, list[_Line]] = {}
        for line in lines:
            if line.requirement is not None:
                named.setdefault(canonicalize_name(line.requirement.name), []).append(line)
        replacements: list[Replacement] = []
        missing = []
        for name, specifier in self.pins.items():
            there = named.get(canonicalize_name(name), [])
            if not there:
                missing.append(f"{name}{specifier}")
            elif specifier:
                replacements += _pin(there, specifier)
        notices = tuple(self._notices(lines))
        if missing:
            replacements.append(_append(data, lines, missing))
        return Rewrite(tuple(replacements), notices)

    def _notices(self, lines: list[_Line]) -> Iterator[Notice]:
        """What the user should know of the lines that are left alone.

        Raises:
            Refusal: One of them may be about a pinned package.
        """
        for line in lines:
            if line.has_option(_INCLUDE):
                yield Notice("the file that this line names is not looked at", line.number)
            elif line.may_require:
                for name in self.pins:
                    if _mentions(line.text, name):
                        line.refuse(f"{name} by its name, with or without a version")
                if not line.has_option(_EDITABLE):
                    yield Notice("not a requirement with a name: left alone", line.number)
            if b"--hash" in line.text:
                yield Notice("with one hash in the file, pip asks for the hashes of all packages", line.number)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line as pip reads it: continuation lines joined, the comment cut off.

    Attributes:
        start: Its byte offset in the file.
        number: The 1-based number of its first line.
        text: It, with spaces for what joins its lines, so that an offset in it is one in the file.
        raw: All its bytes, the line ending included.
        requirement: What it requires, where it is a plain requirement.
    """

    start: int
    number: int
    text: bytes
    raw: bytes
    requirement: Requirement | None

    @property
    def may_require(self) -> bool:
        """Whether pip may find a package in this line, although it is no plain requirement."""
        text = self.text.lstrip()
        return self.requirement is None and bool(text) and (text[:1] != b"-" or self.has_option(_EDITABLE))

    def has_option(self, options: tuple[bytes, ...]) -> bool:
        """Whether the line starts with one of pip's `options`."""
        return self.text.lstrip().startswith(options)

    def refuse(self, expected: str) -> NoReturn:
        """Give up on the file because of this line."""
        raise Refusal(expected, self.raw.decode("utf-8").strip().splitlines()[0], line=self.number)


def _logical_lines(data: bytes) -> Iterator[_Line]:
    physical = [match.group() for match in _PHYSICAL_LINE.finditer(data) if match.group()]
    start = index = 0
    while index < len(physical):
        number = index + 1
        raw = joined = physical[index]
        while _is_continued(physical[index]) and index + 1 < len(physical):
            index += 1
            joined = _blank_ending(joined) + physical[index]
            raw += physical[index]
        text = _COMMENT.sub(b"", joined.rstrip(b"\r\n")).rstrip()
        yield _Line(start, number, text, raw, _requirement(text))
        start += len(raw)
        index += 1


def _is_continued(line: bytes) -> bool:
    return line.rstrip(b"\r\n").endswith(b"\\") and not _COMMENT_LINE.match(line)


def _blank_ending(line: bytes) -> bytes:
    kept = line.rstrip(b"\r\n").removesuffix(b"\\")
    return kept.ljust(len(line))


def _requirement(text: bytes) -> Requirement | None:
    try:
        return Requirement(_OPTIONS_BEHIND.sub(b"", text).decode("utf-8"))
    except InvalidRequirement:
        return None


def _mentions(text: bytes, name: str) -> bool:
    """Whether `name` stands in `text`, in a URL for instance, whatever its case and its dashes."""
    plain = re.sub(r"[-_.]+", "-", text.decode("utf-8")).lower()
    return re.search(rf"(?<![a-z0-9]){re.escape(canonicalize_name(name))}(?![a-z0-9])", plain) is not None


def _pin(lines: list[_Line], specifier: str) -> Iterator[Replacement]:
    """Give every line that requires the package the specifier."""
    markers = {str(line.requirement.marker) for line in lines if line.requirement is not None}
    if len(markers) > 1:
        lines[1].refuse("the package once, or always under the same marker")
    for line in lines:
        requirement = line.requirement
        if requirement is None or requirement.specifier == SpecifierSet(specifier):
            continue
        if requirement.url is not None:
            line.refuse("a version, not a URL")
        if b"--hash" in line.text:
            line.refuse("a version without hashes, which belong to that version alone")
        yield _specify(line, specifier)


def _specify(line: _Line, specifier: str) -> Replacement:
    match = _NAME_AND_VERSION.match(_OPTIONS_BEHIND.sub(b"", line.text))
    if match is None:
        line.refuse("a name and a version")
    version = match["version"].rstrip()
    start = match.start("version") if version else match.end("name")
    return Replacement(line.start + start, line.start + start + len(version), specifier.encode())


def _append(data: bytes, lines: list[_Line], missing: list[str]) -> Replacement:
    """Put the missing packages behind the last line, which gets a line ending only where it has one already."""
    if lines and _is_continued(lines[-1].raw):
        lines[-1].refuse("a last line that is complete")
    newline = "\r\n" if data.count(b"\r\n") * 2 > data.count(b"\n") else "\n"
    text = newline.join(missing)
    ends_open = data and not data.endswith((b"\n", b"\r"))
    return Replacement(len(data), len(data), (newline + text if ends_open else text + newline).encode())
