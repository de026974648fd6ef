"""The report as the tests of a build server: a suite for each tree, a test for each patch.

What an old commit once was is no drift. So a conflict that no head has is a skipped test, not a failed one.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from glmpatch.checking.model import PatchCheck, Report, Standing, TreeCheck, Trouble
from glmpatch.console import printable
from glmpatch.reporting.words import MEANINGS, day, one_line, place, reason, tree_title

_TAGS = {Standing.CONFLICT: "failure", Standing.WRONG: "error", Standing.NOT_YET: "skipped", Standing.GONE: "skipped"}


def render(report: Report) -> str:
    """The report as one XML document in the dialect that Jenkins and GitLab read."""
    root = ET.Element("testsuites", name="glmpatch check")
    for tree in report.trees:
        root.append(_suite(tree))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _suite(tree: TreeCheck) -> ET.Element:
    cases = [_case(tree, cell) for cell in tree.patches]
    counts = {
        key: str(sum(case.find(tag) is not None for case in cases))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    suite = ET.Element("testsuite", {"name": tree_title(tree), "tests": str(len(cases)), **counts})
    if tree.commit:
        properties = ET.SubElement(suite, "properties")
        for name, value in (("commit", tree.commit.hash), ("date", day(tree.commit)), ("subject", tree.commit.subject)):
            ET.SubElement(properties, "property", name=name, value=one_line(value))
    suite.extend(cases)
    return suite


def _case(tree: TreeCheck, cell: PatchCheck) -> ET.Element:
    # Jenkins takes what stands before the last dot for a package.
    suite = tree_title(tree).replace(".", "_")
    case = ET.Element("testcase", classname=f"glmpatch.{suite}", name=cell.patch.id, time="0")
    for trouble in cell.troubles[:1]:
        case.set("file", one_line(trouble.path))
        case.set("line", str(trouble.line or 1))
    tag = _TAGS.get(cell.standing)
    if cell.standing.is_drift and not tree.names:
        message = f"was in drift, but no head is here: {reason(cell)}"
        ET.SubElement(case, "skipped", message=message)
    elif tag:
        message = reason(cell) if cell.troubles else MEANINGS[cell.standing]
        result = ET.SubElement(case, tag, message=message)
        if cell.standing.is_drift:
            result.set("type", cell.standing.value)
            result.text = printable("\n\n".join(map(_explain, cell.troubles)))
    notes = [f"{one_line(path)}:{notice.line or 1}: {one_line(notice.message)}" for path, notice in cell.notices]
    if cell.standing is Standing.LANDED:
        notes.insert(0, MEANINGS[Standing.LANDED])
    if notes:
        ET.SubElement(case, "system-out").text = "\n".join(notes)
    return case


def _explain(trouble: Trouble) -> str:
    lines = [f"{place(trouble)} ({trouble.transform})", f"expected: {trouble.expected}", f"found: {trouble.found}"]
    return "\n".join([*lines, f"hint: {trouble.hint}"] if trouble.hint else lines)
