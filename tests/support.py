"""The helpers that the tests of every transform use."""

from __future__ import annotations

from textwrap import dedent

from glmpatch.assets import asset_folder
from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Notice, Options, Patch, Transform
from glmpatch.patching.series import load_folder, load_series


def all_patches() -> tuple[Patch, ...]:
    """The patches of ChatGLM-6B, and those of PyTorch."""
    pytorch = load_folder(asset_folder("patches") / "pytorch", Options())
    return (*load_series(Options()).patches, *pytorch.patches)


def text(code: str) -> bytes:
    """The bytes of an indented literal."""
    return dedent(code).lstrip("\n").encode()


def line_ending_variants(data: bytes) -> list[bytes]:
    """The same file as it was, with CRLF, and without its last newline."""
    return [data, data.replace(b"\n", b"\r\n"), data.removesuffix(b"\n")]


def check_changed(transform: Transform, before: str, after: str) -> tuple[Notice, ...]:
    """Assert that `before` becomes `after`, under every line ending, and that `after` then stays."""
    notices: tuple[Notice, ...] = ()
    pairs = zip(line_ending_variants(text(before)), line_ending_variants(text(after)), strict=True)
    for old, new in reversed(list(pairs)):
        outcome = transform(old)
        assert isinstance(outcome, Changed), outcome
        assert outcome.data.decode() == new.decode()
        again = transform(new)
        assert isinstance(again, AlreadyDone), again
        notices = outcome.notices
    return notices


def check_untouched(transform: Transform, code: str) -> tuple[Notice, ...]:
    """Assert that the transform finds nothing to do, under every line ending."""
    notices: tuple[Notice, ...] = ()
    for data in reversed(line_ending_variants(text(code))):
        outcome = transform(data)
        assert isinstance(outcome, AlreadyDone), outcome
        notices = outcome.notices
    return notices


def check_refused(transform: Transform, code: str, *, line: int | None, found: str) -> Conflict:
    """Assert that the transform refuses the file at `line`, with `found` somewhere in its message."""
    outcome = transform(text(code))
    assert isinstance(outcome, Conflict), outcome
    assert outcome.line == line, outcome
    assert found in f"{outcome.expected}\n{outcome.found}\n{outcome.hint}", outcome
    return outcome
