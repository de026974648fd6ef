"""Run by every rank: `mpirun -n N python -m tests.conformance.runner FOLDER [--lift NAME...] [--only NAME...]`.

Each test gets a process group of its own, all in one process. The first test that a rank does not pass ends the job,
for the ranks may no longer agree on what comes next. FOLDER gets `NAME.RANK.json` from each rank for each test,
`NAME.RANK.trace` where a test hung or crashed, and `tests.json`, the names of all the tests there are.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import time
import traceback
import unittest
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from unittest import mock

# What torch's tests read when they are imported. A GPU is no business of this backend's.
os.environ["BACKEND"] = "mpi"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# PMI_RANK: Intel MPI and MPICH.
RANK = int(os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"])
RANKS = int(os.environ["WORLD_SIZE"])

from torch import distributed as dist  # noqa: E402
from torch.testing._internal import common_distributed, common_utils  # noqa: E402

# Torch lists what each backend is able to do. Its own MPI backend is not; this one is.
for feature in ("ddp", "subgroup"):
    common_distributed.DistTestCases.backend_feature[feature].add("mpi")

from torch.testing._internal.distributed import distributed_test  # noqa: E402

# Seconds. A group must give up before the test is ended from outside, so that its message is seen.
GROUP_TIMEOUT = 25
TEST_LIMIT = 60

_SKIPS = {skip.exit_code: skip.message for skip in common_distributed.TEST_SKIPS.values()}


class Conformance(common_utils.TestCase, distributed_test.DistributedTest._DistTestBase):
    """Torch's tests, each as a method."""

    rank = RANK
    world_size = RANKS

    def _init_group_test(self, **kwargs: object) -> object:
        """The group of the ranks 1 and 2. Torch has its own guard before these tests, but not for this backend."""
        if RANKS < 3:
            raise unittest.SkipTest("needs 3 ranks")
        return super()._init_group_test(**kwargs)  # type: ignore[no-untyped-call]


class Runner:
    """Runs the tests of a class one by one.

    Args:
        suite: The class.
        folder: Where all ranks report.
        lifted: Tests that run although torch leaves them out for this backend.
        limit: Seconds for a test.
    """

    def __init__(self, suite: type[unittest.TestCase], folder: Path, lifted: Sequence[str], limit: float) -> None:
        self.suite = suite
        self.folder = folder
        self.limit = limit
        self.lifted = {name for name in lifted if self.left_out(name)}
        for name in self.lifted:
            getattr(suite, name).__unittest_skip__ = False

    def left_out(self, name: str) -> bool:
        """Whether a decorator of torch's says that the test is not for this backend, or not for so many ranks."""
        return bool(getattr(getattr(self.suite, name), "__unittest_skip__", False))

    def run(self, name: str) -> bool:
        """Run a test in a group of its own, and report. Returns whether no rank failed it."""
        temp = self.folder / f"{name}.temp"
        for part in ("barrier", "test_dir"):
            (temp / part).mkdir(parents=True, exist_ok=True)
        distributed_test.Barrier.barrier_id = 0
        trace_file = self.folder / f"{name}.{RANK}.trace"
        # Some leave TORCH_DISTRIBUTED_DEBUG set.
        with trace_file.open("w") as trace, mock.patch.dict(os.environ, {"TEMP_DIR": str(temp)}):
            faulthandler.enable(trace)
            faulthandler.dump_traceback_later(self.limit, exit=True, file=trace)
            started = time.monotonic()
            outcome, text = self.attempt(name)
            self._report(name, outcome, text, time.monotonic() - started)
            # Time for a rank that hangs to be ended first, and to leave the trace of it.
            faulthandler.dump_traceback_later(2 * self.limit, exit=True, file=trace)
            # All of them, first: a process that leaves ends the others, and they must have reported by then.
            contents = [self._await_report(name, rank) for rank in range(RANKS)]
            good = all(contents)
            if good and dist.is_initialized():
                dist.destroy_process_group()
            faulthandler.cancel_dump_traceback_later()
        dist.set_debug_level_from_env()  # type: ignore[attr-defined]
        return good

    def attempt(self, name: str) -> tuple[str, str]:
        """What became of a test on this rank, and why."""
        if self.left_out(name):
            return "left out", str(getattr(self.suite, name).__unittest_skip_why__)
        timeout = min(GROUP_TIMEOUT, distributed_test.CUSTOM_PG_TIMEOUT.get(name, GROUP_TIMEOUT))
        try:
            dist.init_process_group("mpi", timeout=timedelta(seconds=timeout))
            common_utils.set_rng_seed()  # type: ignore[no-untyped-call]
            self.suite(name).debug()
        except unittest.SkipTest as skip:
            return "skipped", str(skip)
        except SystemExit as left:
            if left.code in _SKIPS:
                return "skipped", _SKIPS[left.code]
            return "failed", traceback.format_exc()
        except BaseException:  # noqa: BLE001 - whatever it is, it is this test's
            return "failed", traceback.format_exc()
        return "passed", ""

    def _report(self, name: str, outcome: str, text: str, seconds: float) -> None:
        """In one step, for others wait for the file."""
        draft = self.folder / f"{name}.{RANK}.draft"
        told = {"outcome": outcome, "lifted": name in self.lifted, "text": text, "seconds": seconds}
        draft.write_text(json.dumps(told), encoding="utf-8")
        draft.rename(self.folder / f"{name}.{RANK}.json")

    def _await_report(self, name: str, rank: int) -> bool:
        """Whether that rank is content with the test. Waits until it says so, or until this process is ended."""
        file = self.folder / f"{name}.{rank}.json"
        while not file.exists():
            time.sleep(0.005)
        return bool(json.loads(file.read_text(encoding="utf-8"))["outcome"] != "failed")


def main(suite: type[unittest.TestCase] = Conformance, limit: float = TEST_LIMIT) -> None:
    """Run what the arguments name, or everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lift", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    everything = unittest.TestLoader().getTestCaseNames(suite)
    if RANK == 0:
        (arguments.folder / "tests.json").write_text(json.dumps(everything), encoding="utf-8")
    # What is not there cannot be lifted; whoever keeps the list finds out from `tests.json`.
    runner = Runner(suite, arguments.folder, sorted({*arguments.lift} & {*everything}), limit)
    for name in arguments.only or everything:
        if not runner.run(name):
            os._exit(1)  # an orderly end could wait for operations that never finish


if __name__ == "__main__":
    main()
