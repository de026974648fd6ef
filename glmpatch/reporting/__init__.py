"""How the report of a check looks. Each format is a pure function in a module of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial

from glmpatch.checking.model import Report


def _render(module: str, report: Report) -> str:
    text = importlib.import_module(f"glmpatch.reporting.{module}").render(report)
    assert isinstance(text, str)  # noqa: S101 - for mypy; a test calls every one
    return text


# What the user calls each format, and what makes it. All are whole documents and end with a newline.
FORMATS: Mapping[str, Callable[[Report], str]] = {
    "text": partial(_render, "as_text"),
    "json": partial(_render, "as_json"),
    "junit": partial(_render, "as_junit"),
    "markdown": partial(_render, "as_markdown"),
    "github": partial(_render, "as_github"),
    "html": partial(_render, "as_html"),
}
