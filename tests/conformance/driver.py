"""Starts the ranks on torch's tests, as often as it takes, and merges what they report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias, get_args

from glmpatch.mpi.flavour import FlavourId
from tests.mpi_support import run_ranks

# A test is left out by a decorator of torch's that knows the backend; it skips once it runs and misses something.
Outcome: TypeAlias = Literal["passed", "skipped", "left out", "failed"]

# Seconds for all tests of one mpirun; a test that hangs is ended by its rank long before.
_JOB_LIMIT = 600


@dataclass(frozen=True)
class Verdict:
    """What became of a test.

    Attributes:
        outcome: `failed` unless all ranks came to the same.
        text: Why; with the rank before each rank's own words.
        lifted: Whether it ran although torch leaves it out for this backend.
        seconds: Of the slowest rank.
    """

    outcome: Outcome
    text: str = ""
    lifted: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Suite:
    """Some tests, to be run by so many ranks of an MPI.

    Attributes:
        lifted: Those of them that run although torch leaves them out for this backend.
        fails_job: Whether a collective of theirs must time out. The backend then ends the job as failed.
        module: What each rank runs; see `tests.conformance.runner`.
    """

    flavour: FlavourId
    ranks: int
    lifted: Sequence[str] = ()
    fails_job: bool = False
    module: str = "tests.conformance.runner"

    def run(self, names: Sequence[str] = ()) -> dict[str, Verdict]:
        """Run these tests, or all there are, and give each one's verdict.

        A test that does not pass ends its mpirun, and the rest goes on in another. If tests ran before it in the same
        processes, it is run again alone: what they left behind must not count.
        """
        verdicts: dict[str, Verdict] = {}
        alone: list[str] = []
        rest = list(names)
        while rest or not verdicts:
            found, everything = self._run_job(rest)
            rest = rest or everything
            failed = [name for name, verdict in found.items() if verdict.outcome == "failed"]
            alone += failed if len(found) > 1 else []
            verdicts |= found
            rest = [name for name in rest if name not in found]
        for name in alone:
            verdicts |= self._run_job([name])[0]
        return verdicts

    def _run_job(self, names: Sequence[str]) -> tuple[dict[str, Verdict], list[str]]:
        """One mpirun. Returns the verdicts it came to, and the names of the tests it was to run."""
        with TemporaryDirectory(prefix="glmpatch-conformance-") as temp:
            folder = Path(temp)
            command = ("-m", self.module, str(folder), "--lift", *self.lifted, "--only", *names)
            world = {"WORLD_SIZE": str(self.ranks)}
            finished = run_ranks(self.flavour, self.ranks, *command, timeout=_JOB_LIMIT, env=world)
            crash = f"{self.flavour}, {self.ranks} ranks: exit code {finished.code}\n{finished.output[-4000:]}"
            listed = folder / "tests.json"
            assert listed.exists(), crash
            wanted = list(names) or json.loads(listed.read_text(encoding="utf-8"))
            verdicts: dict[str, Verdict] = {}
            for name in wanted:
                if not (folder / f"{name}.temp").exists():
                    break
                verdicts[name] = self._merge(folder, name, finished.output)
            if all(verdict.outcome != "failed" for verdict in verdicts.values()):
                assert bool(finished.code) == self.fails_job, crash
                assert len(verdicts) == len(wanted), crash
        return verdicts, wanted

    def _merge(self, folder: Path, name: str, output: str) -> Verdict:
        """The verdict of all ranks."""
        ranks = [_read(folder, name, rank, output) for rank in range(self.ranks)]
        outcomes = {verdict.outcome for verdict in ranks}
        texts = [f"rank {rank}: {verdict.text}" for rank, verdict in enumerate(ranks) if verdict.text]
        if len(outcomes) > 1:
            texts.insert(0, f"the ranks differ: {', '.join(sorted(outcomes))}")
        outcome = ranks[0].outcome if len(outcomes) == 1 else "failed"
        slowest = max(ranks, key=lambda verdict: verdict.seconds)
        return replace(slowest, outcome=outcome, text="\n".join(texts))


def _read(folder: Path, name: str, rank: int, output: str) -> Verdict:
    """What one rank left."""
    trace, report = folder / f"{name}.{rank}.trace", folder / f"{name}.{rank}.json"
    if trace.exists() and trace.stat().st_size:
        return Verdict("failed", f"hung or crashed\n{trace.read_text(errors='replace')}")
    if report.exists():
        told = json.loads(report.read_text(encoding="utf-8"))
        assert told["outcome"] in get_args(Outcome)
        return Verdict(**told)
    return Verdict("failed", f"did not report; the job's output ends with\n{output[-2000:]}")
