from __future__ import annotations

from xml.etree import ElementTree as ET

import junitparser

from glmpatch.reporting.as_junit import render
from tests.reporting.reports import NASTY, clean_report, nasty_report, report, rich_report


def suites(text: str) -> dict[str, junitparser.TestSuite]:
    return {suite.name: suite for suite in junitparser.JUnitXml.fromstring(text.encode())}


def test_a_suite_for_each_tree_and_a_test_for_each_patch() -> None:
    found = suites(render(rich_report()))
    assert list(found)[:3] == ["main, pinned", "dev", "7000000000"]
    main = found["main, pinned"]
    assert (main.tests, main.failures, main.errors, main.skipped) == (8, 1, 1, 0)
    results = {case.name: [type(result).__name__ for result in case.result] for case in main}
    assert results["precision"] == ["Failure"]
    assert results["train-flags"] == ["Error"]
    assert results["requirements"] == []


def test_a_failure_has_a_place() -> None:
    case = next(case for case in suites(render(rich_report()))["main, pinned"] if case.name == "precision")
    assert case.classname == "glmpatch.main, pinned"
    assert (case._elem.get("file"), case._elem.get("line")) == ("ptuning/main.py", "12")
    (failure,) = case.result
    assert failure.message == "ptuning/main.py:12: expected expected no such text, found found no such text"
    assert "hint: hint no such text" in failure.text


def test_what_is_not_there_is_skipped() -> None:
    found = suites(render(rich_report()))
    (gone,) = next(case for case in found["dev"] if case.name == "frozen-broadcast").result
    assert gone.message == "what it patches is no longer there"
    (early,) = next(case for case in found["1000000000"] if case.name == "process-group").result
    assert early.message == "what it patches is not there yet"


def test_old_commits_fail_nothing() -> None:
    root = ET.fromstring(render(report(*rich_report().trees[2:])))  # noqa: S314 - our own
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("0", "0", "6")
    skipped = root.findall(".//skipped")
    assert "was in drift, but no head is here: ptuning/main.py:99" in str(skipped[0].get("message"))


def test_notices_and_what_landed_are_output() -> None:
    case = next(case for case in suites(render(rich_report()))["dev"] if case.name == "cpu-autocast")
    assert case.system_out == "upstream has it already: nothing left to do\ntrain.sh:7: look here"


def test_any_text_is_xml() -> None:
    root = ET.fromstring(render(nasty_report()))  # noqa: S314 - our own
    assert root.get("failures") == str(len(NASTY))
    assert root.findall("testsuite/testcase/failure")[0].text is not None
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "testcase", "properties", "property", "failure", "system-out"),
    }


def test_a_clean_report_passes() -> None:
    root = ET.fromstring(render(clean_report()))  # noqa: S314 - our own
    assert root.attrib == {"name": "glmpatch check", "tests": "16", "failures": "0", "errors": "0", "skipped": "0"}
