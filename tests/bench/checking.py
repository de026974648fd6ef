"""`glmpatch check` on a history, against the same changes kept as plain git patches; and how its cost grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.patching import GLMPATCH, git
from tests.checking.histories import Drift, make_history, stand_in

RUNS = 5
SIZES = (10, 100, 1000)
# How many versions of each file the generated histories have, however many commits.
VERSIONS = 10
_APPLIES = {"clean", "landed upstream"}
_NOTHING_TO_APPLY = {"not there yet", "gone"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of keeping patches came to.

    Attributes:
        seconds: The wall time for the whole history.
        applied: The number of pairs of a commit and a patch that apply.
        tried: The number of all pairs, but for those where the files of the patch are not there.
        commits: The number of commits.
    """

    seconds: float
    applied: int
    tried: int
    commits: int

    @property
    def share(self) -> float:
        """What applies, from 0 to 1."""
        return self.applied / self.tried

    @property
    def milliseconds(self) -> float:
        """The time for one commit."""
        return 1000 * self.seconds / self.commits


def check(upstream: Path, cache: Path) -> tuple[float, Any]:
    """The wall time of one process that checks the whole history, and its report."""
    command = [*GLMPATCH, "check", "--history", "--upstream", str(upstream), "--format", "json"]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, check=False
    )
    seconds = time.perf_counter() - start
    return seconds, json.loads(done.stdout)


def ours(seconds: float, report: Any) -> Outcome:
    """What `glmpatch check` reports, in the terms of the comparison."""
    cells = [cell["standing"] for tree in report["trees"] for cell in tree["patches"]]
    tried = [standing for standing in cells if standing not in _NOTHING_TO_APPLY]
    return Outcome(seconds, sum(standing in _APPLIES for standing in tried), len(tried), len(report["trees"]))


def plain_patches(upstream: Path, work: Path) -> dict[str, Path]:
    """Each patch as a file that git can apply, made at the default branch."""
    tree = work / "tree"
    git(work, "clone", "--quiet", str(upstream), str(tree))
    listed = subprocess.run([*GLMPATCH, "patches", "--json"], stdout=subprocess.PIPE, check=True).stdout
    files: dict[str, Path] = {}
    for patch in json.loads(listed):
        command = [*GLMPATCH, "diff", str(tree), "--only", patch["id"]]
        diff = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        # A patch that only sees that something is there has no plain form.
        if diff:
            files[patch["id"]] = work / f"{patch['id']}.diff"
            files[patch["id"]].write_bytes(diff)
    return files


def plain_git(upstream: Path, patches: Mapping[str, Path], report: Any, work: Path) -> Outcome:
    """Try each plain patch on each commit of the report, in an index: no file is written."""
    environment = {**os.environ, "GIT_INDEX_FILE": str(work / "index")}
    applied = tried = 0
    start = time.perf_counter()
    for tree in report["trees"]:
        subprocess.run(["git", "read-tree", tree["commit"]["hash"]], cwd=upstream, env=environment, check=True)
        for cell in tree["patches"]:
            if cell["patch"] in patches and cell["standing"] not in _NOTHING_TO_APPLY:
                command = ["git", "apply", "--check", "--3way", "--cached", str(patches[cell["patch"]])]
                done = subprocess.run(command, cwd=upstream, env=environment, capture_output=True, check=False)
                tried += 1
                applied += done.returncode == 0
    return Outcome(time.perf_counter() - start, applied, tried, len(report["trees"]))


def without(report: Any, patches: Mapping[str, Path]) -> Any:
    """The report of the patches that have a plain form: the two are compared on the same pairs."""
    trees = [
        {**tree, "patches": [cell for cell in tree["patches"] if cell["patch"] in patches]} for tree in report["trees"]
    ]
    return {**report, "trees": trees}


def generate(folder: Path, commits: int) -> None:
    """A history in which three files change with every commit, among `VERSIONS` versions."""
    base = stand_in()
    changing = ("ptuning/main.py", "ptuning/train.sh", "api.py")
    drifts = [
        Drift({path: base[path] + b"# version %d\n" % (number % VERSIONS) for path in changing})
        for number in range(1, commits)
    ]
    make_history(folder, [Drift(base), *drifts])


@contextmanager
def real_history(work: Path) -> Iterator[tuple[str, Path]]:
    """A bare clone of upstream with its branches, or a generated history."""
    source = os.environ.get("GLMPATCH_UPSTREAM")
    folder = work / "history.git"
    if source:
        git(work, "clone", "--quiet", "--bare", source, str(folder))
        yield "the official repository", folder
    else:
        generate(folder, 100)
        yield "a generated history (GLMPATCH_UPSTREAM names no clone of the official repository)", folder


def report(console: Console) -> None:
    """Measure, and print the tables. Exits with 1 if plain patches apply as often, or beat a check with its cache."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        with real_history(work) as (name, upstream):
            patches = plain_patches(upstream, work)
            cold: list[float] = []
            warm: list[float] = []
            for run in range(RUNS):
                seconds, found = check(upstream, work / f"cache-{run}")
                cold.append(seconds)
                warm.append(check(upstream, work / f"cache-{run}")[0])
            comparable = without(found, patches)
            first, again = ours(median(cold), comparable), ours(median(warm), comparable)
            peer = plain_git(upstream, patches, found, work)
        console.print(f"history: {name}, {len(found['trees'])} commits, {found['files']} distinct files")
        console.print(_comparison(first, again, peer))
        console.print(_growth(work))
    if first.share <= peer.share or again.milliseconds >= peer.milliseconds:
        console.print("a check is no better than plain patches")
        sys.exit(1)


def _comparison(first: Outcome, again: Outcome, peer: Outcome) -> Table:
    table = Table("what", "applies", "seconds", "ms a commit", "peer / ours", title=f"medians of {RUNS} runs", box=None)
    rows = {
        "glmpatch check --history, cold": first,
        "glmpatch check --history, warm": again,
        "git apply --check --3way": peer,
    }
    for name, outcome in rows.items():
        table.add_row(
            name,
            f"{100 * outcome.share:.1f} % ({outcome.applied} of {outcome.tried})",
            f"{outcome.seconds:.2f}",
            f"{outcome.milliseconds:.1f}",
            f"{peer.milliseconds / outcome.milliseconds:.1f}",
        )
    return table


def _growth(work: Path) -> Table:
    title = f"histories with {VERSIONS} versions of three files"
    table = Table("commits", "distinct files", "cold s", "warm s", title=title, box=None)
    for size in SIZES:
        folder = work / f"generated-{size}.git"
        generate(folder, size)
        cold, found = check(folder, work / f"cache-of-{size}")
        warm, _ = check(folder, work / f"cache-of-{size}")
        table.add_row(str(size), str(found["files"]), f"{cold:.2f}", f"{warm:.2f}")
    return table
