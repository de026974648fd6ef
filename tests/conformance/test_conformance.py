"""Torch's own distributed tests, on every rank of a real mpirun; and that nothing slips through what runs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from glmpatch.mpi.flavour import FlavourId
from tests.conformance.driver import Suite, Verdict
from tests.conformance.report import CELLS, Cell, counts, markdown, run_cell
from tests.conformance.table import Absence, Lifted, Table, load_table

TABLE = load_table()
PASSED = Verdict("passed")
# One of each kind.
SMALL = Table(
    lifted=(Lifted("torch is wrong", ("test_lifted",)),),
    absent=(
        Absence("ranks", "few ranks", "needs 3 ranks", ("test_group",), below=3),
        Absence("gpu", "no GPU", "CUDA", ("test_gpu", "test_group")),
        Absence("refused", "gloo alone", "only gloo", ("test_gloo",), left_out=True),
    ),
)
GOOD = {
    "test_plain": PASSED,
    "test_lifted": Verdict("passed", lifted=True),
    "test_group": Verdict("skipped", "rank 0: needs 3 ranks"),
    "test_gpu": Verdict("skipped", "rank 0: CUDA is not available."),
    "test_gloo": Verdict("left out", "rank 0: not for mpi"),
}


def test_torch_tests() -> None:
    assert TABLE.problems(run_cell("intel", 2, TABLE).verdicts, 2) == []


@pytest.fixture(scope="module")
def cells(request: pytest.FixtureRequest) -> Iterator[list[Cell]]:
    """What ran. The table of it is shown in the end."""
    found: list[Cell] = []
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        sys.stdout.write(f"\n\n{markdown(found, TABLE)}\n\n")


@pytest.mark.conformance
@pytest.mark.parametrize(("flavour", "ranks"), CELLS)
def test_torch_tests_everywhere(flavour: FlavourId, ranks: int, cells: list[Cell]) -> None:
    cells.append(run_cell(flavour, ranks, TABLE))
    assert TABLE.problems(cells[-1].verdicts, ranks) == []


@pytest.mark.conformance
def test_what_torch_leaves_out_has_the_reason_that_is_listed() -> None:
    # In the order of the file, where those that fail stand together: then few of them are run twice.
    names = list(dict.fromkeys(name for absence in TABLE.absent if absence.left_out for name in absence.tests))
    assert TABLE.lifting_problems(Suite("intel", 3, names).run(names), 3) == []


def test_every_fault_is_found_and_the_rest_runs() -> None:
    verdicts = Suite("intel", 2, module="tests.conformance.faulty").run()
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {
        "test_a_passes": "passed",
        "test_b_skips_on_one_rank": "failed",
        "test_c_breaks_those_after_it": "passed",
        "test_d_passes_alone": "passed",
        "test_e_hangs_on_one_rank": "failed",
        "test_f_crashes_on_one_rank": "failed",
    }
    assert verdicts["test_b_skips_on_one_rank"].text == "the ranks differ: passed, skipped\nrank 1: no rank for it"
    assert "in test_e_hangs_on_one_rank" in verdicts["test_e_hangs_on_one_rank"].text
    assert "Segmentation fault" in verdicts["test_f_crashes_on_one_rank"].text


def test_verdicts_as_listed_are_no_problem() -> None:
    assert SMALL.problems(GOOD, 2) == []


@pytest.mark.parametrize(
    ("name", "verdict", "problem"),
    [
        ("test_plain", Verdict("failed", "wrong"), "test_plain: failed, and not listed\nwrong"),
        ("test_plain", Verdict("skipped", "CUDA"), "test_plain: skipped, and not listed\nCUDA"),
        ("test_plain", Verdict("left out"), "test_plain: left out, and not listed\n"),
        ("test_lifted", PASSED, "test_lifted: listed as lifted, but torch does not leave it out"),
        ("test_lifted", Verdict("failed", "wrong"), "test_lifted: failed, and not listed\nwrong"),
        ("test_gpu", PASSED, "test_gpu: passed, but listed: no GPU\n"),
        ("test_gpu", Verdict("failed", "CUDA"), "test_gpu: failed, but listed: no GPU\nCUDA"),
        ("test_gpu", Verdict("skipped", "Tuesday"), "test_gpu: skipped, but listed: no GPU\nTuesday"),
        ("test_gloo", PASSED, "test_gloo: passed, but listed: gloo alone\n"),
        ("test_group", PASSED, "test_group: passed, but listed: few ranks\n"),
    ],
)
def test_anything_else_is_a_problem(name: str, verdict: Verdict, problem: str) -> None:
    assert SMALL.problems({**GOOD, name: verdict}, 2) == [problem]


@pytest.mark.parametrize("name", ["test_lifted", "test_gpu", "test_gloo", "test_group"])
def test_a_listed_test_must_exist(name: str) -> None:
    verdicts = {other: verdict for other, verdict in GOOD.items() if other != name}
    assert SMALL.problems(verdicts, 2) == [f"{name}: listed, but torch has no such test"]


def test_the_number_of_ranks_decides_what_is_expected() -> None:
    assert SMALL.problems(GOOD, 3) == ["test_group: skipped, but listed: no GPU\nrank 0: needs 3 ranks"]
    assert SMALL.problems({**GOOD, "test_group": GOOD["test_gpu"]}, 3) == []


def test_a_reason_is_wrong_if_the_lifted_test_passes_or_says_something_else() -> None:
    assert SMALL.lifting_problems({"test_gloo": Verdict("failed", "only gloo", lifted=True)}, 2) == []
    assert SMALL.lifting_problems({"test_gloo": Verdict("passed", lifted=True)}, 2)
    assert SMALL.lifting_problems({"test_gloo": Verdict("failed", "wrong", lifted=True)}, 2)
    assert SMALL.lifting_problems({"test_gpu": Verdict("skipped", "CUDA")}, 2)


def test_the_report_counts_what_was_selected_and_joins_equal_rows() -> None:
    verdicts = {**GOOD, "test_gpu": Verdict("failed")}
    assert counts(Cell("intel", "1", 2, verdicts), SMALL) == {
        "selected": 3,
        "selected passed": 1,
        "selected ranks": 1,
        "selected unexpected": 1,
        "lifted": 1,
        "lifted passed": 1,
    }
    shown = markdown([Cell("intel", "1", 2, GOOD), Cell("mpich", "2", 2, GOOD), Cell("mpich", "2", 3, verdicts)], SMALL)
    assert "| Intel MPI 1, MPICH 2 | 2 | 3 | 1 | 1 | 1 | 0 | 1 | 0 | 0 |\n| MPICH 2 | 3 |" in shown
