from __future__ import annotations

import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from glmpatch.building.logged import logged
from glmpatch.errors import BuildFailedError, ExitCode
from glmpatch.process import stream


@pytest.fixture(autouse=True)
def _logs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def program(code: str) -> Generator[str, None, None]:
    return stream([sys.executable, "-c", code])


def test_lines_are_handed_on_and_no_log_is_left(tmp_path: Path) -> None:
    assert list(logged(program("print('one'); print('two')"), "the step")) == ["one", "two"]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_shows_its_end_and_keeps_all_of_it(tmp_path: Path) -> None:
    code = "print('\\n'.join(f'{n} ' + 'x' * 1000 for n in range(100))); raise SystemExit(5)"
    seen: list[str] = []
    with pytest.raises(BuildFailedError) as caught:
        seen.extend(logged(program(code), "the step"))
    assert caught.value.exit_code == ExitCode.BUILD
    first, *tail = caught.value.message.splitlines()
    assert first == "the step failed with exit code 5:"
    assert tail[0].startswith("    75 xxx")
    assert tail[-1].startswith("    99 xxx")
    assert max(map(len, tail)) < 400
    (log,) = tmp_path.iterdir()
    assert str(log) in caught.value.hint
    assert log.read_text().splitlines()[0] == "0 " + "x" * 1000
    assert len(log.read_text().splitlines()) == 100


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("[1/2]\\ncause\\nreport\\nnoise\\nreport", "    [1/2]\n    cause"),
        (
            "report\\nof a warning\\n[1/2]\\ncause\\nreport\\nnoise",
            "    report\n    of a warning\n    [1/2]\n    cause",
        ),
        ("a warning\\nreport\\ncause", "    a warning\n    report\n    cause"),
        ("[1/2]\\ncause", "    [1/2]\n    cause"),
    ],
)
def test_the_tools_own_report_is_not_the_end(printed: str, told: str) -> None:
    report = (re.compile(r"\[\d/\d\]"), "report")
    with pytest.raises(BuildFailedError) as caught:
        list(logged(program(f"print('{printed}'); raise SystemExit(1)"), "the step", report=report))
    assert caught.value.message.partition("\n")[2] == told


def test_a_reader_that_stops_ends_the_program(tmp_path: Path) -> None:
    lines = logged(program("import time; print('one', flush=True); time.sleep(60)"), "the step")
    assert next(lines) == "one"
    lines.close()
    assert list(tmp_path.iterdir()) == []
