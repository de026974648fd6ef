"""The patching commands: whole processes, in turn with their peer, so that a slow moment hits both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from glmpatch.assets import asset_folder

RUNS = 11
GLMPATCH = [str(Path(sys.executable).with_name("glmpatch"))]
CODEMOD = """
from libcst import Name
from libcst.codemod import VisitorBasedCodemodCommand


class HalfToBfloat16(VisitorBasedCodemodCommand):
    DESCRIPTION = "x.half -> x.bfloat16"

    def leave_Attribute(self, original_node, updated_node):
        if updated_node.attr.value == "half":
            return updated_node.with_changes(attr=Name("bfloat16"))
        return updated_node
"""


def seconds(command: Sequence[str], cwd: Path) -> float:
    """The wall time of one process, in seconds."""
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def git(folder: Path, *command: str) -> str:
    """Run git in a folder."""
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    done = subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def prepare_upstream(folder: Path) -> str:
    """Put a local clone of upstream into `folder`; what was cloned."""
    source = os.environ.get("GLMPATCH_UPSTREAM")
    if source:
        git(folder.parent, "clone", "--quiet", source, str(folder))
        return "the official repository"
    shutil.copytree(asset_folder("templates") / "demo" / "upstream", folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Stand-in")
    return "the stand-in (GLMPATCH_UPSTREAM names no clone of the official repository)"


def compare(ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of ours and of the peer in seconds, and the median of the ratios, after one warm-up of each."""
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(RUNS)]
    return (
        median(first for first, _ in pairs),
        median(second for _, second in pairs),
        median(first / second for first, second in pairs),
    )


def report(console: Console) -> None:
    """Measure, and print the table. Exits with 1 if `apply` changes anything when it runs again."""
    table = Table("what", "peer", "seconds", "peer's", "ratio", title=f"medians of {RUNS} runs", box=None)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        tree = work / "ChatGLM-6B"
        source = prepare_upstream(tree)
        base = git(tree, "rev-parse", "HEAD")

        peer_folder = work / "peer"
        peer_folder.mkdir()
        (peer_folder / "half_to_bfloat16.py").write_text(CODEMOD)
        (peer_folder / ".libcst.codemod.yaml").write_text("modules: ['.']\nrepo_root: '.'\n")

        def apply() -> float:
            git(tree, "reset", "--hard", "--quiet", base)
            return seconds([*GLMPATCH, "apply", str(tree)], work)

        def apply_again() -> float:
            return seconds([*GLMPATCH, "apply", str(tree)], work)

        def codemod() -> float:
            shutil.copy(tree / "ptuning" / "main.py", peer_folder / "main.py")
            subprocess.run(["sed", "-i", "s/bfloat16()/half()/", "main.py"], cwd=peer_folder, check=True)
            command = ["-m", "libcst.tool", "codemod", "--no-format", "-x", "half_to_bfloat16.HalfToBfloat16"]
            return seconds([sys.executable, *command, "main.py"], peer_folder)

        def show_help() -> float:
            return seconds([*GLMPATCH, "--help"], work)

        def import_click() -> float:
            return seconds([sys.executable, "-c", "import click"], work)

        rows = [
            ("glmpatch --help", 'python -c "import click"', compare(show_help, import_click)),
            ("glmpatch apply: all patches, commits", "libcst.tool codemod: main.py, one", compare(apply, codemod)),
            ("glmpatch apply, the second time", "libcst.tool codemod: main.py, one", compare(apply_again, codemod)),
        ]
        for what, peer, (first, second, ratio) in rows:
            table.add_row(what, peer, f"{first:.3f}", f"{second:.3f}", f"{ratio:.2f}")

        state = git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain")
        apply_again()
        same = state == (git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain"))
    console.print(f"upstream: {source}")
    console.print(table)
    console.print(f"apply again leaves HEAD and the working tree as they are: {'yes' if same else 'NO'}")
    if not same:
        sys.exit(1)
