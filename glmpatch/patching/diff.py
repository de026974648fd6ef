"""Unified diffs of bytes, in the form that `git apply` reads."""

from __future__ import annotations

import difflib
import os


def unified_diff(path: str, before: bytes, after: bytes) -> bytes:
    """The diff of one file, line endings and a missing last newline included; empty where nothing changes."""
    name = os.fsencode(path)
    lines = difflib.diff_bytes(
        difflib.unified_diff, _lines(before), _lines(after), b"a/" + name, b"b/" + name, lineterm=b"\n"
    )
    text = b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines)
    # The first line tells git that the file exists, even if it is empty on one side.
    return b"diff --git a/%b b/%b\n%b" % (name, name, text) if text else b""


def _lines(data: bytes) -> list[bytes]:
    """The lines with their endings. Unlike `splitlines`, only a newline ends a line."""
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])
