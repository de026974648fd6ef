from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from glmpatch import __version__
from glmpatch.assets import asset_folder
from glmpatch.checking.model import Report
from glmpatch.reporting.as_json import render, schema
from tests.reporting.reports import NASTY, clean_report, nasty_report, report, rich_report

SCHEMA = asset_folder("templates") / "check-report.schema.json"


def test_the_schema_is_the_one_of_the_code() -> None:
    # To renew it: python -c "import json, glmpatch.reporting.as_json as j; print(json.dumps(j.schema(), indent=2))"
    assert SCHEMA.read_text() == json.dumps(schema(), indent=2) + "\n"


@pytest.mark.parametrize("one", [rich_report(), clean_report(), nasty_report(), nasty_report(folder=True), report()])
def test_reports_are_valid(one: Report) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.check_schema(validator.schema)
    document = json.loads(render(one))
    validator.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**document, "schema": 2})


def test_all_is_in_it_but_the_diffs() -> None:
    document: dict[str, Any] = json.loads(render(rich_report()))
    assert document["version"] == __version__
    assert (document["drifted"], document["files"], document["computed"]) == (True, 194, 3)
    main = document["trees"][0]
    assert main["names"] == ["main", "pinned"]
    assert main["commit"]["date"] == "2023-03-23T00:00:00+08:00"
    precision = main["patches"][2]
    assert precision["standing"] == "conflict"
    assert precision["troubles"][0]["line"] == 12
    assert precision["troubles"][0]["since"]["hash"] == "3" + "0" * 39
    assert main["patches"][5]["notices"] == [{"path": "train.sh", "line": 7, "message": "look here"}]
    assert main["patches"][0]["changes"] == ["ptuning/main.py"]
    assert document["landed"] == [{"patch": "cpu-autocast", "names": ["main", "pinned", "dev"]}]
    assert "import torch" not in render(rich_report())


def test_texts_are_kept_as_they_are() -> None:
    document = json.loads(render(nasty_report()))
    found = [tree["patches"][1]["troubles"][0]["path"] for tree in document["trees"]]
    assert found == [text.replace("\udcff", "\N{REPLACEMENT CHARACTER}") for text in NASTY]
