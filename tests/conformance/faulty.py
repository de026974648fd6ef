"""Tests with every fault that the driver must survive; run by two ranks in place of torch's."""

from __future__ import annotations

import os
import signal
import time

from torch import distributed as dist
from torch.testing._internal import common_utils

from tests.conformance import runner

LIMIT = 3


class Faulty(common_utils.TestCase):
    """Run in the order of their names."""

    broken = False

    def test_a_passes(self) -> None:
        dist.barrier()

    def test_b_skips_on_one_rank(self) -> None:
        if runner.RANK:
            self.skipTest("no rank for it")

    def test_c_breaks_those_after_it(self) -> None:
        Faulty.broken = True

    def test_d_passes_alone(self) -> None:
        assert not Faulty.broken

    def test_e_hangs_on_one_rank(self) -> None:
        if runner.RANK:
            time.sleep(600)

    def test_f_crashes_on_one_rank(self) -> None:
        if runner.RANK:
            os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    runner.main(Faulty, LIMIT)
