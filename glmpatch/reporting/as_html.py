"""The report as one page that needs nothing else: a grid of trees by patches, and the diff behind each cell."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from glmpatch.assets import asset_folder
from glmpatch.checking.model import FileChange, PatchCheck, Report, Standing, TreeCheck, Trouble
from glmpatch.patching.model import Notice, Patch
from glmpatch.reporting.findings import find_troubles
from glmpatch.reporting.highlight import DiffLine, diff_lines
from glmpatch.reporting.words import (
    MARKS,
    MEANINGS,
    day,
    github_url,
    join,
    one_line,
    place,
    printable,
    reason,
    scope,
    short_hash,
    tree_title,
    verdict,
)

_LONGEST = 4_000


@dataclass(frozen=True, slots=True)
class _Detail:
    """What a panel shows. Many cells share it."""

    patch: Patch
    standing: Standing
    troubles: tuple[Trouble, ...]
    notices: tuple[tuple[str, Notice], ...]
    diffs: tuple[int, ...]


@dataclass(slots=True)
class _Page:
    """The panels and the diffs of a report, each once; the number of one is its place in the dict."""

    details: dict[tuple[Any, ...], tuple[int, _Detail]] = field(default_factory=dict)
    diffs: dict[FileChange, tuple[int, list[DiffLine]]] = field(default_factory=dict)

    def detail(self, cell: PatchCheck) -> int:
        """The number of the panel of a cell."""
        diffs = tuple(self.diff(change) for change in cell.changes)
        key = cell.patch.id, cell.standing, cell.troubles, cell.notices, diffs
        if key not in self.details:
            detail = _Detail(cell.patch, cell.standing, cell.troubles, cell.notices, diffs)
            self.details[key] = len(self.details), detail
        return self.details[key][0]

    def diff(self, change: FileChange) -> int:
        """The number of the diff of a change."""
        if change not in self.diffs:
            self.diffs[change] = len(self.diffs), diff_lines(change)
        return self.diffs[change][0]


def render(report: Report) -> str:
    """The report as an HTML page. It asks for nothing from elsewhere, and forbids the browser to."""
    environment = Environment(
        loader=FileSystemLoader(asset_folder("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(csp=_csp_hash, day=day, join_words=join, line=one_line, place=place, short=short_hash)
    page = _Page()
    rows = [(tree, tree_title(tree), [(cell, page.detail(cell)) for cell in tree.patches]) for tree in report.trees]
    return (
        environment.get_template("report.html.j2").render(
            report=report,
            verdict=verdict(report),
            scope=scope(report),
            findings=[finding for finding in find_troubles(report) if finding.heads],
            rows=rows,
            label=_label,
            details=[detail for _, detail in page.details.values()],
            diffs=[(change.path, lines) for change, (_, lines) in page.diffs.items()],
            github=github_url(report.upstream),
            standings=list(Standing),
            marks=MARKS,
            meanings=MEANINGS,
        )
        + "\n"
    )


def _label(tree: TreeCheck, title: str, cell: PatchCheck) -> str:
    """What is read out for a cell, and shown when the pointer is over it."""
    where = f"{title} ({day(tree.commit)})" if tree.commit else title
    return f"{cell.patch.id}, {where}: {cell.standing.value}. {reason(cell)}"


def _clean(value: object) -> object:
    """All that the template puts out passes here: no control characters, no marks that turn text around."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value[:_LONGEST])
    return value


def _csp_hash(source: str) -> str:
    """The expression that allows this inline style or script, and no other."""
    return Markup("'sha256-{}'").format(base64.b64encode(hashlib.sha256(source.encode()).digest()).decode())
