"""The report as one page that needs nothing else: a grid of trees by patches, and the diff behind each cell."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from glmpatch import __version__
from glmpatch.assets import asset_folder
from glmpatch.checking.model import PatchCheck, Report, Standing, TreeCheck
from glmpatch.console import printable
from glmpatch.reporting.findings import find_troubles
from glmpatch.reporting.highlight import diff_lines
from glmpatch.reporting.words import (
    MARKS,
    MEANINGS,
    count,
    day,
    github_url,
    join,
    one_line,
    place,
    reason,
    scope,
    short_hash,
    tree_title,
    verdict,
)

_LONGEST = 4_000


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
    environment.filters.update(count=count, csp=_csp_hash, day=day, join_words=join, line=one_line, place=place)
    environment.filters.update(short=short_hash, diff_lines=diff_lines)
    # Many cells share a panel, many panels a diff.
    panels = {_key(cell): cell for tree in report.trees for cell in tree.patches}
    numbers = {key: number for number, key in enumerate(panels)}
    changes = dict.fromkeys(change for cell in panels.values() for change in cell.changes)
    found = find_troubles(report)
    return (
        environment.get_template("report.html.j2").render(
            report=report,
            version=__version__,
            verdict=verdict(report),
            scope=scope(report),
            findings=[finding for finding in found if finding.heads],
            old=[finding for finding in found if not finding.heads],
            title=tree_title,
            label=_label,
            panels=list(panels.values()),
            number=lambda cell: numbers[_key(cell)],
            diffs={change: number for number, change in enumerate(changes)},
            github=github_url(report.upstream),
            standings=list(Standing),
            marks=MARKS,
            meanings=MEANINGS,
        )
        + "\n"
    )


def _key(cell: PatchCheck) -> tuple[object, ...]:
    """What tells panels apart. A patch cannot be a key, as a transform may hold a dict."""
    return cell.patch.id, cell.standing, cell.troubles, cell.notices, cell.changes


def _label(tree: TreeCheck, cell: PatchCheck) -> str:
    """What is read out for a cell, and shown when the pointer is over it."""
    where = f"{tree_title(tree)} ({day(tree.commit)})" if tree.commit else tree_title(tree)
    return f"{cell.patch.id}, {where}: {cell.standing.value}. {reason(cell)}"


def _clean(value: object) -> object:
    """All that the template puts out passes here: no control characters, no marks that turn text around."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value[:_LONGEST])
    return value


def _csp_hash(source: str) -> str:
    """The expression that allows this inline style or script, and no other."""
    return Markup("'sha256-{}'").format(base64.b64encode(hashlib.sha256(source.encode()).digest()).decode())
